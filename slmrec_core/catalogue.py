"""The items that a model knows: raw ids by column, their titles, and how often each one was chosen."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from slmrec_core.errors import DataError, shown
from slmrec_core.structures import PAD_ITEM


@dataclass(frozen=True)
class Catalogue:
    """Raw ids, index 0 standing for padding, and what is known of them."""

    item_ids: tuple[str, ...]
    """By column of the scores."""
    titles: tuple[str, ...] | None = None
    """By column, empty where unknown; None = the data had none."""
    counts: tuple[int, ...] | None = None
    """Training events by column: who has no history gets the items that most chose. None = not known."""

    def __post_init__(self) -> None:
        for name in ("titles", "counts"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.item_ids):
                raise DataError(
                    f"catalogue: {name} must have one value for each of {len(self.item_ids)} columns, padding included,"
                    f" got {len(values)}."
                )

    def __len__(self) -> int:
        """Items, without padding."""
        return len(self.item_ids) - 1

    def known(self, items: Sequence[str | int], what: str) -> tuple[list[int], list[str]]:
        """Columns of the items that there are, and the raw ids of those that there are not, both in order.

        Args:
            items: Raw ids.
            what: They are, for the message.

        Raises:
            DataError: It is a text, which would be read letter by letter.
        """
        if isinstance(items, str | bytes):
            raise DataError(
                f"recommender: {what} must be a list of raw item ids, got {shown(items)}. One item is [{shown(items)}]."
            )
        columns = [self._columns.get(str(item)) for item in items]
        unknown = [str(item) for item, column in zip(items, columns, strict=True) if column is None]
        return [column for column in columns if column is not None], unknown

    def columns(self, items: Sequence[str | int], what: str) -> list[int]:
        """Columns of items that must all be there.

        Args:
            items: At least one.
            what: They are, for the message.

        Raises:
            DataError: There is no item, or the catalogue lacks one, or it is a text.
        """
        columns, unknown = self.known(items, what)
        if unknown or not columns:
            raise DataError(
                f"recommender: {what} must hold known items, got {unknown[:3] or 'no item'}."
                f" The catalogue has {len(self)} items; leave out those that it lacks."
            )
        return columns

    @cached_property
    def _columns(self) -> dict[str, int]:
        return {item: column for column, item in enumerate(self.item_ids) if column != PAD_ITEM}
