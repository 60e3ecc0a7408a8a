"""Tables of codes and words. Each file names its source."""

from __future__ import annotations

import csv
from importlib.resources import files
from typing import Final

__all__ = ["GENDERS", "PROVINCES", "STATES", "records"]


def records(table: str) -> list[dict[str, str]]:
    """Return the lines of one CSV table beside this file, by column name."""
    text = files(__name__).joinpath(f"{table}.csv").read_text("utf-8")
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return list(csv.DictReader(lines))


# Names by their letters alone, in lower case. ANSI INCITS 38: the 50 states and the
# District of Columbia.
STATES: Final = {
    "alabama": "al", "alaska": "ak", "arizona": "az", "arkansas": "ar",
    "california": "ca", "colorado": "co", "connecticut": "ct", "delaware": "de",
    "districtofcolumbia": "dc", "florida": "fl", "georgia": "ga", "hawaii": "hi",
    "idaho": "id", "illinois": "il", "indiana": "in", "iowa": "ia", "kansas": "ks",
    "kentucky": "ky", "louisiana": "la", "maine": "me", "maryland": "md",
    "massachusetts": "ma", "michigan": "mi", "minnesota": "mn", "mississippi": "ms",
    "missouri": "mo", "montana": "mt", "nebraska": "ne", "nevada": "nv",
    "newhampshire": "nh", "newjersey": "nj", "newmexico": "nm", "newyork": "ny",
    "northcarolina": "nc", "northdakota": "nd", "ohio": "oh", "oklahoma": "ok",
    "oregon": "or", "pennsylvania": "pa", "rhodeisland": "ri", "southcarolina": "sc",
    "southdakota": "sd", "tennessee": "tn", "texas": "tx", "utah": "ut",
    "vermont": "vt", "virginia": "va", "washington": "wa", "westvirginia": "wv",
    "wisconsin": "wi", "wyoming": "wy",
}  # fmt: skip

# ISO 3166-2:CA: the ten provinces and three territories.
PROVINCES: Final = {
    "alberta": "ab", "britishcolumbia": "bc", "manitoba": "mb", "newbrunswick": "nb",
    "newfoundland": "nl", "newfoundlandandlabrador": "nl", "northwestterritories": "nt",
    "novascotia": "ns", "nunavut": "nu", "ontario": "on", "princeedwardisland": "pe",
    "quebec": "qc", "québec": "qc", "saskatchewan": "sk", "yukon": "yt",
}  # fmt: skip

# [choice] Meta takes f and m. The words are English, German, French, Spanish,
# Portuguese, Italian, Dutch and Nordic. ISO 5218's numbers are left out: 0 and 1 are
# just as often no and yes.
GENDERS: Final = {
    **dict.fromkeys((
        "f", "female", "woman", "girl", "ms", "mrs", "miss", "w", "weiblich", "frau",
        "femme", "féminin", "feminin", "mujer", "femenino", "feminino", "mulher",
        "femmina", "femminile", "donna", "vrouw", "vrouwelijk", "kvinna", "kvinne",
        "kvinde",
    ), "f"),
    **dict.fromkeys((
        "m", "male", "man", "boy", "mr", "männlich", "maennlich", "mann", "herr",
        "homme", "masculin", "hombre", "masculino", "homem", "maschio", "maschile",
        "uomo", "mannelijk", "mand",
    ), "m"),
}  # fmt: skip
