"""What columns are called, in six languages: a name in, what it may hold out.

The spellings are compared without case, accents, separators and German digraphs, so
`Geändert_Am`, `geaendertAm` and `GEANDERT AM` are one. Of several, the first is likelier.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Final

from meta_capi.money import currency

__all__ = ["currency_in", "folded", "is_in_cents", "likeness"]

_SPELLINGS: Final[Mapping[str, str]] = {
    "em": """email e_mail email_address mail mail_address em emailadresse mailadresse
        correo correo_electronico direccion_email courriel adresse_mail adresse_email
        adresse_electronique emailadres indirizzo_email posta_elettronica
        endereco_email""",
    "ph": """phone phone_number telephone tel mobile mobile_number mobile_phone cell
        cellphone cell_phone msisdn ph telefon telefonnummer telefon_nr tel_nr
        rufnummer mobil mobilnummer mobiltelefon handy handynummer natel telefono
        numero_telefono numero_de_telefono telefono_movil movil celular telefone
        telemovel numero_telemovel portable numero_de_telephone telefoon
        telefoonnummer mobiel gsm cellulare numero_di_telefono""",
    "fn": """first_name given_name forename fname fn vorname nombre primer_nombre prenom
        voornaam nome primeiro_nome nome_proprio""",
    "ln": """last_name surname family_name lname ln nachname familienname apellido
        apellidos nom nom_de_famille achternaam cognome sobrenome apelido""",
    "db": """birthday birthdate birth_date date_of_birth dob geburtsdatum geburtstag
        geb_datum fecha_nacimiento fecha_de_nacimiento date_naissance
        date_de_naissance data_nascimento data_de_nascimento data_nascita
        data_di_nascita geboortedatum""",
    "ge": """gender sex ge geschlecht genero sexo genre sexe geslacht sesso""",
    "ct": """city town ct ort wohnort stadt ciudad localidad ville localite commune
        stad plaats woonplaats citta comune cidade municipio""",
    "st": """state state_code province province_code bundesland kanton provincia
        comunidad_autonoma departement provincie uf""",
    "zp": """zip zip_code postcode postal_code postal zp plz postleitzahl codigo_postal
        code_postal cp cap codice_postale cep""",
    "country": """country country_code country_iso iso_country land landcode
        laendercode laenderkuerzel landescode staat pais codigo_pais pays code_pays
        landnaam paese codice_paese nazione""",
    "external_id": """external_id customer_id customer_no customer_number customer_nr
        cust_id client_id user_id member_id contact_id person_id kunden_id
        kundennummer kunden_nr id_cliente cliente_id numero_cliente codigo_cliente
        id_client numero_client klant_id klantnummer klant_nr utente_id
        id_utente""",
    "lead_id": """meta_lead_id fb_lead_id facebook_lead_id leadgen_id lead_id""",
    "fbc": "fbc",
    "fbp": "fbp",
    "client_ip_address": """client_ip_address client_ip ip_address ip ip_adresse
        adresse_ip direccion_ip endereco_ip indirizzo_ip ip_adres remote_addr""",
    "client_user_agent": "client_user_agent user_agent browser_agent",
    "subscription_id": "meta_subscription_id fb_subscription_id",
    "fb_login_id": "fb_login_id facebook_login_id",
    "madid": "madid idfa gaid aaid mobile_advertiser_id advertising_id",
    "event.id": "meta_event_id fb_event_id pixel_event_id",
    "value": """order_total order_value total_amount total_price grand_total
        gross_amount amount_paid paid_amount amount total revenue value price
        gesamtbetrag gesamtsumme bruttobetrag endbetrag auftragswert bestellwert betrag
        summe umsatz gesamtpreis preis wert importe_total importe monto_total monto
        precio_total montant_total montant prix_total valor_total valor_pedido valor
        totaalbedrag bedrag totaal importo_totale importo totale
        prezzo_totale""",
    "currency": """currency currency_code iso_currency ccy waehrung waehrungscode
        waehrungskuerzel wkz moneda divisa devise code_devise moeda valuta valutacode
        munteenheid""",
    "order_id": """order_id order_no order_number order_nr receipt_no receipt_id
        receipt_number receipt_nr invoice_no invoice_id invoice_number transaction_id
        ticket_no ticket_id bestellnummer bestell_nr bestell_id auftragsnummer
        auftrags_nr auftrag_id beleg_nr belegnummer bon_nr bonnummer rechnungsnummer
        rechnungs_nr pedido_id id_pedido numero_pedido commande_id id_commande
        numero_commande bestelnummer bestel_nr bestelling_id ordine_id id_ordine
        numero_ordine""",
    "key": """id uuid event_id sale_id purchase_id conversion_id booking_id call_id
        row_id nr nummer""",
    "event.time": """event_time occurred_at happened_at converted_at conversion_time
        conversion_date status_changed_at stage_changed_at
        stage_entered_at stage_reached_at stage_at stage_date purchased_at purchase_time
        purchase_date sold_at sale_time
        sale_date ordered_at order_time order_date order_datetime paid_at payment_date
        transaction_time transaction_date invoice_date receipt_date called_at call_time
        call_date booked_at booking_date visited_at visit_date event_timestamp
        event_date verkauft_am verkaufszeitpunkt verkaufszeit verkaufsdatum gekauft_am
        kaufzeitpunkt kaufdatum bestellt_am bestellzeitpunkt bestelldatum belegzeit
        belegdatum bondatum rechnungsdatum auftragsdatum anrufzeit fecha_compra
        fecha_venta fecha_pedido fecha_hora date_achat date_vente date_commande
        date_heure achete_le vendu_le data_compra data_venda data_pedido data_vendita
        data_acquisto data_ordine verkocht_op verkoopdatum besteld_op besteldatum
        aankoopdatum timestamp zeitpunkt datum fecha""",
    "cursor": """loaded_at ingested_at inserted_at imported_at synced_at load_date
        load_time load_ts etl_loaded_at dwh_loaded_at fivetran_synced updated_at
        modified_at changed_at last_updated last_updated_at last_modified
        last_modified_at last_modified_date last_update system_modstamp update_time
        updated_on updated modified geladen_am importiert_am geaendert_am
        aktualisiert_am letzte_aenderung aenderungsdatum fecha_carga
        fecha_actualizacion actualizado_en fecha_modificacion modificado_en charge_le
        date_maj mis_a_jour_le date_modification modifie_le data_carga
        data_atualizacao atualizado_em data_modificacao modificado_em data_modifica
        modificato_il data_aggiornamento aggiornato_il geladen_op gewijzigd_op
        bijgewerkt_op wijzigingsdatum""",
    "created": """created_at created_on created create_time created_date creation_date
        creation_time recorded_at erstellt_am angelegt_am erfasst_am erstellungsdatum
        fecha_creacion creado_en date_creation cree_le data_criacao criado_em
        data_creazione creato_il aangemaakt_op aanmaakdatum""",
    "consent": """marketing_consent consent_marketing ads_consent ad_consent consent
        consent_given marketing_opt_in opt_in gdpr_consent marketing_permission
        accepts_marketing werbeeinwilligung marketing_einwilligung
        dsgvo_einwilligung einwilligung werbezustimmung zustimmung
        consentement_marketing consentement consentimiento_marketing consentimiento
        consentimento_marketing consentimento consenso_marketing consenso
        marketing_toestemming toestemming""",
    "limited_data_use": "limited_data_use ldu",
    "stage": "lead_stage lead_status deal_stage pipeline_stage stage phase status",
    "whole name": """full_name name nom_complet nombre_completo nome_completo
        volledige_naam naam""",
}  # fmt: skip

# What is said before or after the word itself, as in customerEmail or email_sha256.
_BEFORE: Final = """customer cust client kunden kunde contact kontakt person user buyer
    kaeufer billing bill rechnungs lead patient member cliente comprador acheteur klant
    klanten utente utilisateur usuario recipient primary main home"""
_AFTER: Final = "hashed hash sha256 raw text normalized normalised lower 1"
_CENTS: Final = """in_cents cents cent in_rappen rappen minor minor_units centimes
    centavos centesimi pence"""


def folded(name: str) -> str:
    """Return what is compared of a name.

    >>> folded("Geändert_Am"), folded("geaendertAm")
    ('geandertam', 'geandertam')
    """
    plain = unicodedata.normalize("NFKD", name).casefold()
    letters = "".join(sign for sign in plain if sign.isalnum())
    for digraph in ("ae", "oe", "ue"):
        letters = letters.replace(digraph, digraph[0])
    return letters


def _ranks(spellings: str) -> dict[str, int]:
    return {folded(each): rank for rank, each in enumerate(spellings.split())}


_RANKS: Final = {role: _ranks(each) for role, each in _SPELLINGS.items()}
_PREFIXES: Final = tuple(_ranks(_BEFORE))
_SUFFIXES: Final = tuple(_ranks(_AFTER))
_CENT_SUFFIXES: Final = tuple(_ranks(_CENTS))


def likeness(name: str, role: str) -> tuple[int, int] | None:
    """Return how like a role a column's name is, the least being the likest.

    >>> likeness("E-Mail", "em") < likeness("kundenEmail", "em")
    True
    >>> likeness("colour", "em") is None
    True
    """
    ranks = _RANKS[role]
    for taken_away, core in enumerate(_cores(folded(name), role)):
        if core in ranks:
            return taken_away, ranks[core]
    return None


def currency_in(name: str) -> str | None:
    """Return the currency that the name of an amount ends with.

    >>> currency_in("totalCHF"), currency_in("total")
    ('CHF', None)
    """
    core = folded(name)
    code = currency(core[-3:])
    return code if core[:-3] in _RANKS["value"] and isinstance(code, str) else None


def is_in_cents(name: str) -> bool:
    """Tell whether the name of an amount says that it counts cents.

    >>> is_in_cents("amount_cents"), is_in_cents("amount")
    (True, False)
    """
    return folded(name).endswith(_CENT_SUFFIXES)


def _cores(name: str, role: str) -> list[str]:
    """Return a name, and what is left of it without the words around."""
    found = [name]
    if role == "value":
        found += [name.removesuffix(each) for each in _CENT_SUFFIXES]
        found += [name[:-3]] if currency_in(name) else []
    else:
        tail = next((each for each in _SUFFIXES if name.endswith(each)), "")
        without = name.removesuffix(tail)
        head = next((each for each in _PREFIXES if without.startswith(each)), "")
        found += [without, name.removeprefix(head), without.removeprefix(head)]
    return found
