"""Why a conversion is where it is, by our own rules."""

from __future__ import annotations

from typing import Final

from meta_capi.catalogue.entry import Effect, Texts

__all__ = ["TEXTS"]

_FIX_AND_REPLAY = "Correct the row in the warehouse; the next run that reads it sends it, or run replay_deliveries."
_FIX_FOR_MATCH = "Correct the column in the warehouse to raise the match rate; nothing needs to be sent again."

_SETTLE = "Look the event up in Events Manager, then say what you found with `meta-capi settle`."

TEXTS: Final[Texts] = {
    Effect.ACCEPTED: {
        "person.received": ("It was in doubt, and a person found that Meta has it.", "Nothing."),
    },
    Effect.WITHHELD: {
        "erased": ("The conversion was erased from the ledger, and is not sent.", "Nothing; delete the row in the warehouse, if it is to be gone there, too."),
        "consent.not_given": ("The consent column does not hold one of the feed's `granted` values.", "Nothing, unless the customer agrees later; then the next run that reads the row sends it."),
        "match_keys.none": ("No match key of the row is usable, so Meta could not match the event.", "Look at the dropped keys of the row with `explain`."),
        "match_keys.too_broad": ("The usable match keys fit too many people; Meta refuses such events (2804050).", "Map further columns (em, ph, external_id) in the feed."),
        "stage.ignored": ("The feed lists the stage under `ignore`.", "Nothing."),
    },
    Effect.QUARANTINED: {
        "key.missing": ("A key column is empty, so the row has no name.", "Fill the key; a row without one can never be sent safely."),
        "key.duplicate": ("Several rows of the interval have the same key; nobody can say which is true.", "Make the key unique in the source, then run replay_deliveries for it."),
        "key.personal": ("The key holds an e-mail address, and keys stand in the ledger; the row is there under a name made from it.", "Name rows by an order number or another surrogate."),
        "event_id.personal": ("The event id is an e-mail address, which would leave in clear.", "Send the id that the Pixel sends; it is no customer's address."),
        "key.too_long": ("The key is longer than 128 characters.", "Use a shorter surrogate key."),
        "event_id.taken": ("Another conversion of this dataset already has this event id; Meta would drop the later one.", "Make the event id column unique, then run again."),
        "event_id.too_long": ("The event id is longer than 128 characters.", "Send the id that the Pixel sends."),
        "time.missing": ("The event time is empty.", _FIX_AND_REPLAY),
        "time.unreadable": ("The event time does not have the feed's format.", "Correct the row, or event.time.format in the feed."),
        "time.no_zone": ("The event time carries no zone and the feed declares none.", "Declare event.time.timezone in the feed."),
        "time.in_future": ("The event time is more than a minute ahead.", "Correct the row, or event.time.timezone in the feed."),
        "time.not_seconds": ("The event time is a number that cannot be in the feed's unit (milliseconds for seconds, or the reverse).", "Correct event.time.format in the feed, or the row."),
        "value.missing": ("The event needs a value and has none.", _FIX_AND_REPLAY),
        "value.unreadable": ("The value is not a number in the feed's notation.", "Correct the row, or custom_data.value.decimal_mark in the feed."),
        "value.negative": ("The value is below zero; Meta has no refunds.", "Leave refunds out of the feed's source."),
        "value.not_finite": ("The value is NaN or infinite.", _FIX_AND_REPLAY),
        "value.too_large": ("The value has more than 15 digits before the decimal mark.", _FIX_AND_REPLAY),
        "currency.missing": ("The event needs a currency and has none.", "Fill the column, or set custom_data.currency.default."),
        "currency.unknown": ("The currency is not an ISO 4217 code in use.", _FIX_AND_REPLAY),
        "contents.unreadable": ("The contents are not a JSON list of objects, or an item's price is no amount, its delivery category no word of Meta's, or a text no text.", _FIX_AND_REPLAY),
        "contents.incomplete": ("An item of the contents has no id or no quantity above zero (Meta refuses it, 2804008).", _FIX_AND_REPLAY),
        "stage.missing": ("The lead stage is empty.", _FIX_AND_REPLAY),
        "stage.unknown": ("The lead stage is neither in the feed's `map` nor in `ignore`.", "Add the stage to the feed, or correct the row."),
        "stage.before_lead": ("The stage was reached before the lead was made; Meta drops such events.", _FIX_AND_REPLAY),
        "stage.out_of_order": ("The lead reached this stage before an earlier stage of the funnel.", _FIX_AND_REPLAY),
        "text.unreadable": ("A key, id or text cannot be sent: it holds NUL or half a surrogate pair, has lost digits, or is longer than 2,000 characters.", _FIX_AND_REPLAY),
        "event.too_large": ("The event is larger than 64,000 bytes.", "Send fewer contents, or shorter texts."),
        "gate.failed": ("The row failed an expectation of the feed's suite.", "See the run's Data Docs for the expectation; then correct the row."),
        "split.budget": ("The batch held more refused events than the requests allowed for finding them.", "See the codes of its neighbours; raise limits.requests_per_split, or correct the rows; then replay."),
    },
    Effect.EXPIRED: {
        "window.over": ("Meta takes no event this old (7 days; 62 for physical_store), margin included.", "Nothing can be sent. Run the feed more often, or shorten the delay of the source."),
        "row.gone": ("It was owed, and its row was not in the source any more until Meta took it no longer.", "Nothing, if the row was deleted on purpose."),
    },
    Effect.IN_DOUBT: {
        "answer.none": ("The request went out and no answer came back.", "tend_deliveries sends it again inside Meta's deduplication window, if the feed says resend."),
        "answer.unclear": ("The answer could not be read, or was a server error; the events may have been processed.", "tend_deliveries sends it again inside Meta's deduplication window, if the feed says resend."),
        "answer.count": ("Meta counted another number of events than the batch had.", "Compare with Events Manager; then use `meta-capi settle`, or let tend_deliveries resend."),
        "worker.lost": ("The worker died, or lost its lease, while the request was out.", "tend_deliveries sends it again inside Meta's deduplication window, if the feed says resend."),
        "doubt.held": ("The feed's policy holds events in doubt for a person.", _SETTLE),
        "doubt.window_over": ("Meta's deduplication window is over; a resend could count twice.", _SETTLE),
        "doubt.row_changed": ("The source row changed after the unanswered request, so it cannot be sent again unchanged.", _SETTLE),
        "doubt.given_up": ("A person has left it in doubt for good: it is not sent again.", "Nothing."),
        "ledger.restored": ("The ledger was put back from an older copy, and the event may have gone out since the copy was made.", "tend_deliveries sends it again inside Meta's deduplication window, if the feed says resend; after that, settle it with `meta-capi settle`."),
    },
    Effect.PENDING: {
        "holding": ("The feed's holding period is not over.", "Nothing; tend_deliveries sends it in time."),
        "limit": ("The run's limit was reached before this row.", "Run without a limit."),
        "throttled": ("Meta asked to wait longer than the run could.", "Nothing; the next run or tend_deliveries sends it."),
        "not_sent": ("The request provably did not reach Meta.", "Nothing; the next run or tend_deliveries sends it."),
        "stopped": ("Meta takes nothing from this token or dataset.", "See the run's error; when it is mended, run again."),
        "worker.released": ("The worker was stopped, or died, before the request went out.", "Nothing; the next run or tend_deliveries sends it."),
        "replayed": ("A person put it back.", "Nothing; the next run or tend_deliveries sends it."),
        "person.not_received": ("It was in doubt, and a person found that Meta does not have it.", "Nothing; the next run or tend_deliveries sends it."),
        "row.missing": ("It is due, and its row is not in the source; it is looked for every hour.", "Nothing, if the row was deleted on purpose: it expires."),
    },
    Effect.KEY_DROPPED: {
        "em.not_an_address": ("No single @ with a dotted domain after it, or a space inside.", _FIX_FOR_MATCH),
        "ph.no_country_code": ("A national number whose country is not known.", "Map `country`, or set ph.default_country."),
        "ph.not_a_number": ("Too few or too many digits, or not a possible number.", _FIX_FOR_MATCH),
        "name.nothing_left": ("Nothing but spaces and punctuation.", _FIX_FOR_MATCH),
        "db.unreadable": ("Not a date in the feed's format.", "Set user_data.db.format, or correct the row."),
        "db.out_of_range": ("Before 1900 or after today.", _FIX_FOR_MATCH),
        "ge.unknown": ("Neither female nor male; Meta takes only these two.", "Nothing."),
        "ct.nothing_left": ("No letters.", _FIX_FOR_MATCH),
        "st.nothing_left": ("No letters.", _FIX_FOR_MATCH),
        "zp.too_short": ("Shorter than two characters, or not five digits in the United States.", _FIX_FOR_MATCH),
        "country.unknown": ("Not a country by ISO 3166 code or English name.", _FIX_FOR_MATCH),
        "hash.md5": ("32 hex characters: an MD5 digest, which Meta does not match.", "Store SHA-256, or the clear value."),
        "hash.of_nothing": ("The SHA-256 digest of the empty string.", "Leave the column empty where there is no value."),
        "external_id.too_long": ("Longer than 512 characters.", _FIX_FOR_MATCH),
        "lead_id.damaged": ("Not 15 to 17 digits; spreadsheets and floating point damage such ids.", "Load the id as text from Meta's webhook or download."),
        "fb_login_id.not_digits": ("Not a whole number.", _FIX_FOR_MATCH),
        "fbc.malformed": ("Not fb.<index>.<milliseconds>.<click id>.", "Store the _fbc cookie as it is."),
        "fbp.malformed": ("Not fb.<index>.<milliseconds>.<number>.", "Store the _fbp cookie as it is."),
        "ip.not_public": ("Not an address of the public internet.", _FIX_FOR_MATCH),
        "user_agent.unreadable": ("Empty, or with control characters.", _FIX_FOR_MATCH),
        "madid.not_a_uuid": ("Not a UUID, or all zeros.", _FIX_FOR_MATCH),
        "content_type.unknown": ("Neither product nor product_group; Meta refuses any other word.", "Map a column with these words, or leave content_type out of the feed."),
        "delivery_category.unknown": ("None of in_store, curbside and home_delivery; Meta refuses any other word.", "Map a column with these words, or a constant."),
        "value.several": ("Several values stand in a field that takes one.", _FIX_FOR_MATCH),
        "value.damaged": ("A number that lost digits on its way (floating point, or 1e+15).", "Load the column as text or as an integer."),
        "value.text_unreadable": ("A character that cannot be sent (NUL or half a surrogate pair), or more than 2,000 characters.", _FIX_FOR_MATCH),
        "ldu.state_unknown": ("Limited data use without one of the states Meta knows: sent with 0, 0 (Meta geolocates).", "Map limited_data_use.state."),
    },
}  # fmt: skip
