from __future__ import annotations

from unittest import TestCase

from llmproxy.web.admin.kept_forms import KeptForm, form_within, offered_again, unsent_form


class KeptFormTests(TestCase):
    def test_a_form_is_offered_as_it_was_written(self) -> None:
        """Every value of a field that comes several times; without what belongs to the session before."""
        fields = {"name": ["Ä & =", "second"], "csrf": ["old"], "seen": ['"3"'], "once": ["n"], "empty": [""]}
        form = unsent_form("/admin/projects", fields)
        assert form is not None
        self.assertNotIn("old", form.body)
        page = offered_again(form, "new")
        sent = [("name", "Ä & ="), ("name", "second"), ("once", "n"), ("empty", "")]
        self.assertEqual((page.values["fields"], page.values["csrf"]), (sent, "new"))
        self.assertEqual(page.values["shown"], [("name", "Ä & ="), ("name", "second")])

    def test_a_provider_key_is_kept_and_not_shown(self) -> None:
        page = offered_again(KeptForm("/admin/projects/p/keys", "api=openai&key=sk-secret"), "c")
        self.assertEqual(page.values["shown"], [("api", "openai"), ("key", "(not shown)")])
        self.assertIn(("key", "sk-secret"), page.values["fields"])

    def test_where_one_goes_who_discards_it(self) -> None:
        for path, back in (
            ("/admin/projects/p/keys", "/admin/projects/p"),
            ("/admin/upstreams/openai/0", "/admin/upstreams"),
            ("/admin/settings", "/admin/settings"),
        ):
            self.assertEqual(offered_again(KeptForm(path, ""), "c").values["back"], back)

    def test_nothing_is_kept_that_no_page_sends(self) -> None:
        for path in ("/admin/usage", "/admin/nothing", "/v1/models", "https://evil.example/admin/projects", ""):
            self.assertIsNone(unsent_form(path, {"a": ["b"]}))
            self.assertIsNone(form_within({"kept_path": [path], "kept": ["a=b"]}))
        self.assertIsNone(unsent_form("/admin/projects", {}))

    def test_one_that_is_kept_again_is_the_same(self) -> None:
        """Where the session is over still when it is to be resumed."""
        form = KeptForm("/admin/projects", "name=x")
        self.assertEqual(unsent_form("/admin/resume", {"kept_path": [form.path], "kept": [form.body]}), form)

    def test_what_is_not_readable_is_empty(self) -> None:
        self.assertEqual(offered_again(KeptForm("/admin/projects", "a=%ff&b"), "c").values["fields"], [])
