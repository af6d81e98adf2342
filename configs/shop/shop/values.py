"""What the services of the shop tell one another: dataclasses, which travel as maps.

Must not import anything of the shop: every part of it imports this.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Product:
    name: str
    cents: int


@dataclass(frozen=True)
class Receipt:
    """``version``: of the billing that has written it."""

    number: int
    cents: int
    version: str


@dataclass(frozen=True)
class Order:
    number: int
    user: str
    product: str
    receipt: Receipt


def euros(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02}"
