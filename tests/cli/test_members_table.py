"""The members as the command line shows them."""

from rich.console import Console

from app.cli.commands.portfolio import create_members_table


def test_the_weight_to_which_prices_have_carried_a_member_stands_beside_the_one_that_was_set() -> (
    None
):
    member = {
        "position_rank": 1,
        "symbol": "BTCUSDT",
        "contract": "XBTUSDTM",
        "weight_percentage": 11.231314,
        "current_weight_percentage": 14.125951,
        "target_weight_percentage": 11.5,
        "current_score": 0.9,
        "confidence": None,
        "is_tradeable": True,
        "not_tradeable_reason": None,
    }
    console = Console(width=200)
    with console.capture() as shown:
        console.print(
            create_members_table({"members": [member], "size": 1, "max_size": 10, "version": 3})
        )
    line = next(one for one in shown.get().splitlines() if "BTCUSDT" in one)
    figures = [cell.strip() for cell in line.split("│")]
    assert figures[4:7] == ["11.231314", "14.125951", "11.500000"]
