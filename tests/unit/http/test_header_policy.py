from __future__ import annotations

from unittest import TestCase

from llmproxy.errors import HeaderRequired, OriginRequired
from llmproxy.errors.policy import HeaderNotAllowed
from llmproxy.http.header_policy import check_required, check_values


class Required(TestCase):
    def test_it_must_be_there(self) -> None:
        """And not be empty; its name is told, and who requires it."""
        check_required([b"X-Team: a", b"Origin: https://a.example"], ["x-team", "Origin"])
        for lines in ([], [b"X-Team: "], [b"X-Teams: a"]):
            with self.assertRaises(HeaderRequired) as caught:
                check_required(lines, ["x-team"], "project")
            self.assertEqual(caught.exception.message, "This project requires the header x-team.")
        with self.assertRaises(OriginRequired):
            check_required([], ["origin"])


class Values(TestCase):
    def allowed(self, *lines: bytes) -> bool:
        try:
            check_values(list(lines), "X-Beta", ["tools-*", "b"], "token")
        except HeaderNotAllowed as e:
            self.assertEqual(e.message, "The header X-Beta has a value that this token does not allow.")
            return False
        return True

    def test_each_element_of_each_field(self) -> None:
        for lines, allowed in [
            ([], True),
            ([b"Other: c"], True),
            ([b"x-beta: b"], True),
            ([b"X-BETA:  tools-2 , b"], True),
            ([b"X-Beta: tools-1,,b"], True),
            ([b"X-Beta: B"], False),
            ([b"X-Beta: c"], False),
            ([b"X-Beta:"], False),
            ([b"X-Beta: tools-1,c"], False),
            ([b"X-Beta: b", b"X-Beta: c"], False),
            ([b"X-Beta: tools-" + b"x" * 2000], False),
            ([b"X-Beta: tools-\xff"], True),
        ]:
            with self.subTest(lines=lines):
                self.assertEqual(self.allowed(*lines), allowed)

    def test_a_glob_takes_no_comma(self) -> None:
        """Else what stands behind one would be allowed with it."""
        check_values([b"X: a, b"], "x", ["a*", "b"])
        with self.assertRaises(HeaderNotAllowed):
            check_values([b"X: a, evil"], "x", ["a*"])
