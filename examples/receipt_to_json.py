"""Turn the picture of a receipt into checked JSON.

    python examples/receipt_to_json.py [PICTURE]

The fields come by a schema, which binds the answer and leaves the thinking free. The items come
from the transcription, and their sum is compared with the total: a model can misread, arithmetic
cannot. Exits with 1 if the two differ.

Runs offline, on the miniature. `GLM4V_MODEL=zai-org/GLM-4.1V-9B-Thinking` takes the real model.
"""

import os
import re
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path

from pydantic import BaseModel, Field

from langchain_glm4v import ChatGLM4V, question_about

RECEIPT = Path(__file__).parent / "media" / "receipt.png"
ITEM = re.compile(r"(?P<name>[^:\n]+?) +(?P<price>\d+\.\d\d)")


class Fields(BaseModel):
    """What stands on every receipt."""

    total: Decimal = Field(alias="Total")
    day: date = Field(alias="Date")


class Item(BaseModel):
    """A line of a receipt."""

    name: str
    price: Decimal


class Receipt(BaseModel):
    """A receipt with its items."""

    day: date
    items: list[Item]  # of the same name too, as of two coffees
    total: Decimal

    @property
    def is_sound(self) -> bool:
        """Whether the items make the total."""
        return sum(item.price for item in self.items) == self.total


def read(model: ChatGLM4V, picture: str | Path) -> Receipt:
    """Read a receipt."""
    fields = model.with_structured_output(Fields).invoke(
        [question_about("Extract the fields.", picture)]
    )
    lines = model.invoke([question_about("Transcribe the text.", picture)]).text.splitlines()
    found = [match for line in lines if (match := ITEM.fullmatch(line.strip()))]
    items = [Item.model_validate(match.groupdict()) for match in found]
    return Receipt(day=fields.day, items=items, total=fields.total)


def main() -> int:
    """Read one receipt and print it."""
    picture = sys.argv[1] if len(sys.argv) > 1 else RECEIPT
    with ChatGLM4V.managed(os.environ.get("GLM4V_MODEL", "tiny"), temperature=0) as model:
        receipt = read(model, picture)
    print(receipt.model_dump_json(indent=2))
    print("the items make the total" if receipt.is_sound else "THE ITEMS DO NOT MAKE THE TOTAL")
    return 0 if receipt.is_sound else 1


if __name__ == "__main__":
    sys.exit(main())
