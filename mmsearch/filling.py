"""Bring a store up to date with its sources, or over to another encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mmsearch.encoding import FieldEncoder
from mmsearch.errors import InvalidInput, StoreError
from mmsearch.ingest import Ingest
from mmsearch.protocols import Encoder
from mmsearch.reencode import fill
from mmsearch.sources import Source
from mmsearch.store import Store
from mmsearch.types import AddReport, Report


def ingest_all(
    store: Store,
    encoder: Callable[[], Encoder],
    sources: Sequence[Source],
    progress: Report | None,
    *,
    absent_is_failure: bool = False,
) -> AddReport:
    """Take in sources, one after the other; what one has lost another may have found.

    Parameters
    ----------
    absent_is_failure
        A source that is not there is told in ``failed`` instead of ending the work.
    """
    report, absent = AddReport(), []
    with store.writing():
        own = encoder()  # asked for inside, since another process may just have switched the store to another one
        store.check_encoder(own)
        runs = []
        for source in sources:
            run = Ingest(store, own, source, progress)
            try:
                run.add()
            except InvalidInput as error:
                if not absent_is_failure:
                    raise
                absent.append((str(source.path), str(error)))
                continue
            runs.append(run)
        for run in runs:  # after all were looked at, since what one has lost another may have found
            run.remove()
            report += run.result()
        # Items that were there before get their rows in spaces that are new.
        fields = FieldEncoder(own, store.fields())
        failed = fill(store, fields, store.adopt(own, fields.widths()), progress)
        report += AddReport(failed=tuple(absent + failed))
        store.tidy(progress)
    return report


def reindex(store: Store, encoder: Encoder, progress: Report | None) -> AddReport:
    """Encode everything anew with another encoder, and switch to it at the end. See ``Engine.reindex``."""
    with store.writing():
        fields = FieldEncoder(encoder, store.fields())
        records = store.adopt(encoder, fields.widths(), following=True)
        failed = fill(store, fields, records, progress)
        n_items = len(store.catalog)
        if n_items and len({name for name, _ in failed}) >= n_items:
            raise StoreError(f"none of {n_items} items could be encoded anew, so nothing was switched: {failed[0][1]}")
        store.switch()
        store.tidy(progress)
    return AddReport(added=n_items - len(failed), failed=tuple(failed), changed=n_items - len(failed))
