"""Durations: the one parser."""

import pytest

from mlforge.duration import LONGEST, microseconds, origin
from mlforge.errors import DefinitionError

SECOND = 1_000_000


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("90s", 90), ("2m", 120), ("3h", 10_800), ("7d", 604_800), ("1w", 604_800), ("36525d", 3_155_760_000)],
)
def test_a_duration_is_its_number_of_microseconds(text: str, seconds: int) -> None:
    assert microseconds(text) == seconds * SECOND


@pytest.mark.parametrize(
    "text",
    [
        "",
        "d",
        "7",
        "0d",
        "00d",
        "07d",
        "-7d",
        "+7d",
        "7 d",
        " 7d",
        "7d ",
        "7d\n",
        "7D",
        "1.5d",
        "1e3d",
        "7d12h",
        "\u0667d",
    ],
)
def test_what_is_no_duration_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        microseconds(text)
    assert repr(text) in str(caught.value)
    assert "as in '7d'" in str(caught.value)


@pytest.mark.parametrize("value", [7, None, b"7d", 7.0])
def test_what_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(DefinitionError, match="is not a duration"):
        microseconds(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["1mo", "3months", "1y", "2 years", "1q", "1M"])
def test_calendar_months_are_refused_with_the_way_out(text: str) -> None:
    with pytest.raises(DefinitionError, match="Calendar months and years have no fixed length: use days, as in '30d'"):
        microseconds(text)


@pytest.mark.parametrize("text", ["36526d", "5218w", "999999999999999999w"])
def test_more_than_a_century_is_refused(text: str) -> None:
    with pytest.raises(DefinitionError, match=f"'{text}' is longer than a century"):
        microseconds(text)


def test_more_digits_than_any_duration_has_are_refused() -> None:
    with pytest.raises(DefinitionError, match="is not a duration"):
        microseconds("9" * 5000 + "d")


def test_a_century_fits() -> None:
    assert microseconds("36525d") == LONGEST


def test_weeks_count_from_a_monday_and_all_else_from_the_epoch() -> None:
    assert origin("1w") == origin("3w") == 4 * 86_400 * SECOND
    assert [origin(text) for text in ("7d", "168h", "1m", "1s")] == [0, 0, 0, 0]
