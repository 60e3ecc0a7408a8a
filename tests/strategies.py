"""Every Hypothesis strategy, and the settings that property tests share."""

from __future__ import annotations

import unicodedata

import phonenumbers
from hypothesis import settings
from hypothesis import strategies as st

from meta_capi import spec

SETTINGS = settings(max_examples=300, deadline=None)
"""Deadlines measure the machine, not the rule."""

# --- texts ----------------------------------------------------------------------------

# Any code point: NUL, half surrogate pairs, unassigned ones.
hostile_texts = st.text(st.characters(), max_size=60)

_LETTERS = st.sampled_from(
    "aZzéÉøßİıŞΣσςЖжїקםعलीทนิ名정ﾅǅŉﬁ'’ʼ`´.-_,;|/&()0٣９ "
    "\t\n\u00a0\u0301\u0307\u200b\u200d\ufeff"
)
names = st.text(_LETTERS, max_size=30)
"""Names in many scripts, with what people and exports put between the letters."""

_LABEL = st.text("abcdefghijklmnopqrstuvwxyz0123456789ü", min_size=1, max_size=12)
emails = st.builds(
    "{0}{2}{3}@{4}.{5}{1}".format,
    st.sampled_from(["", " ", "\t"]), st.sampled_from(["", "  ", "\n"]),
    _LABEL, st.sampled_from(["", "+tag", ".b", "_C"]),
    _LABEL, st.sampled_from(["com", "CO.UK"]),
)  # fmt: skip

decomposable = st.text(st.sampled_from("éèüñçåőǻÀ각힣aK"), min_size=1, max_size=12)


def decomposed(text: str) -> str:
    """Return the other spelling of the same text."""
    return unicodedata.normalize("NFD", text)


# --- keys -----------------------------------------------------------------------------

match_keys = st.sampled_from([*spec.DIGESTED_KEYS, *spec.PLAIN_KEYS])
countries = st.sampled_from(
    [None, "us", "ca", "gb", "de", "ch", "it", "in", "jp", "cn"]
)
masks = st.integers(min_value=0, max_value=2**19 - 1)

# --- phones ---------------------------------------------------------------------------

_CODES = st.sampled_from(sorted(phonenumbers.COUNTRY_CODE_TO_REGION_CODE))
regions = st.none() | st.sampled_from(sorted(phonenumbers.SUPPORTED_REGIONS))


@st.composite
def phone_numbers(draw: st.DrawFn) -> tuple[str, str | None]:
    """A number as someone typed it, and the region it may be from."""
    region = draw(regions)
    own = phonenumbers.country_code_for_region(region) if region else draw(_CODES)
    code = draw(st.sampled_from([own, draw(_CODES)]))
    before = draw(st.sampled_from(["", "0", "1", "+", "00", "+0", "(0)", "011"]))
    if draw(st.booleans()):
        before += str(code)
    after = draw(st.text("0123456789", min_size=2, max_size=13))
    example = phonenumbers.example_number(region) if region else None
    if example and draw(st.booleans()):
        after = phonenumbers.national_significant_number(example)
    text = before + after
    gap = draw(st.sampled_from(["", " ", "-", ".", "/"]))
    return gap.join([text[:4], text[4:7], text[7:]]), region


# --- database values ------------------------------------------------------------------

database_values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.decimals(), st.dates(),
    st.datetimes(), st.uuids(), st.binary(max_size=40), st.ip_addresses(),
    hostile_texts,
    st.integers(min_value=0).map(lambda n: 10**n if n < 6_000 else -(10**6_000)),
    st.just(object()), st.lists(st.text(), max_size=2),
)  # fmt: skip

_LARGEST = 10**15 - 1
amounts = st.one_of(
    st.integers(0, _LARGEST), st.floats(0, 1e14), st.decimals(0, _LARGEST)
)  # fmt: skip
"""Amounts of money as a database gives them, all usable."""
