"""Records by their parts are the records that they were made of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.brief_record import MAX_KINDS, MAX_SEEN_ONCE, OPTIONAL_FIGURES, RecordFigures, RecordKinds, parts_of
from llmproxy.model import RequestRecord

FIRST = RequestRecord("r1", 0.0, 0.5, "POST", "/v1", 200, "complete")
any_records = st.builds(
    RequestRecord,
    *(st.text(max_size=2), st.floats(0, 1), st.floats(0, 1), st.text(max_size=2), st.text(max_size=2)),
    *(st.integers(100, 599), st.text(max_size=2)),
    **{
        name: st.none() | st.floats(0, 1)
        if name in OPTIONAL_FIGURES
        else st.integers(0, 9)
        if name in RecordFigures.__struct_fields__
        else st.text(max_size=2)
        for name in RequestRecord._fields[7:]
    },
)


class BriefRecordTests(SynchronousTestCase):
    @given(st.lists(any_records, max_size=4))
    def test_whole(self, records: list[RequestRecord]) -> None:
        """Nothing of a record is lost, whichever others have come before."""
        kinds = RecordKinds()
        self.assertEqual([kinds.parts_of(each).whole() for each in records * 3], records * 3)
        self.assertEqual([parts_of(each).whole() for each in records], records)

    def test_one_kind(self) -> None:
        """From the second time on it is the same object, for records that differ in figures alone."""
        kinds = RecordKinds()
        other = FIRST._replace(request_id="r2", started_at=1.0, bytes_in=7, input_tokens=3, steps="x")
        once, kept, again = (kinds.parts_of(each).kind for each in (FIRST, other, FIRST))
        self.assertEqual((once.is_kept, kept.is_kept), (False, True))
        self.assertIs(kept, again)
        for changes in ({"model": "m"}, {"first_byte": 0.0}, {"client": "c"}, {"attribution": "a"}):
            self.assertIsNot(kinds.kind_of(FIRST._replace(**changes)), kept)

    def test_ever_new_ones(self) -> None:
        """No more is kept than so much."""
        kinds = RecordKinds()
        for number in range(MAX_KINDS + MAX_SEEN_ONCE + 2):
            for _ in range(2 if number <= MAX_KINDS else 1):
                kinds.kind_of(FIRST._replace(path=f"/{number}"))
        self.assertLessEqual(len(kinds._kinds), MAX_KINDS)
        self.assertLessEqual(len(kinds._seen_once), MAX_SEEN_ONCE)
