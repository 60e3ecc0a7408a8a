"""The search finds a canary in every shape; else its silence would say nothing."""

from __future__ import annotations

import pytest
from tests.security.canaries import TRANSFORMS, Aviary

AVIARY = Aviary.hatched(token="EAABcanaryOfTheSearch0123456789", app_secret="0f" * 16)
NOISE = (
    b"2026-11-22T06:42:30.051716Z 1234567890123456 \xff\x00 x\x9cnot packed\x1f\x8b\x08"
)


@pytest.mark.parametrize("shape", TRANSFORMS)
def test_every_canary_is_found_in_every_shape(shape: str) -> None:
    for name in AVIARY.names():
        planted = NOISE + TRANSFORMS[shape](AVIARY[name]) + NOISE
        assert any(each.startswith(name) for each in AVIARY.found_in(planted)), name


def test_a_phone_number_is_found_however_it_is_laid_out() -> None:
    digits = "".join(c for c in AVIARY["phone"] if c.isdigit())
    for text in (f"{digits[:4]} {digits[4:7]}.{digits[7:]}", f"tel:+{digits}"):
        assert "phone (digits)" in AVIARY.found_in(text)


def test_nothing_is_found_where_nothing_is() -> None:
    assert AVIARY.found_in(NOISE, "nothing at all", b"") == set()


def test_what_is_found_is_named_and_not_quoted() -> None:
    found = AVIARY.found_in(*(AVIARY[name] for name in AVIARY.names()))
    assert {name.partition(" (")[0] for name in found} == set(AVIARY.names())
    assert AVIARY.found_in(*found, repr(AVIARY)) == set()
