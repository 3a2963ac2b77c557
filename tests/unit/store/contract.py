"""What every store and every token validator must do, whatever stands behind it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from zope.interface.verify import verifyObject

from llmproxy.access_policy import ALL_ALLOWED, AccessPolicy
from llmproxy.base.secret_reference import SecretReference
from llmproxy.errors import (
    ChangedMeanwhile,
    Conflict,
    Invalid,
    NotFound,
    QuotaExceeded,
    TokenExpired,
    TokenInactive,
    TokenNotFound,
    UpstreamAuthError,
)
from llmproxy.interfaces import IBudgetStore, IProjectStore, ITokenStore, ITokenValidator, IWatchable
from llmproxy.model import UNLIMITED, Allowance, Budget, Changes, Grant, ListFilter, PageRequest, Project, Token
from llmproxy.sealing import Sealer, TokenHasher, derive
from llmproxy.store import budgets
from llmproxy.store.changes import MAX_CHANGES
from llmproxy.store.pages import encode_cursor
from llmproxy.store.store import Store

MASTER = "an encryption key for tests"
OPENAI_KEY = "sk-proj-" + "0123456789abcdef" * 3


class Calendar:
    """What time it is: epoch seconds that only a test moves."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self.step = 0.001

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def new_store(url: str, now: Callable[[], float], master: str = MASTER, **more: Any) -> Store:
    from twisted.internet import reactor

    given: dict[str, Any] = {
        "sealer": Sealer(derive(master, "seal")),
        "hasher": TokenHasher(derive(master, "hash")),
        "random": os.urandom,
        # A loaded machine is not a store that is down.
        "timeout": 30.0,
        **more,
    }
    return Store(url, given.pop("reactor", reactor), now=now, **given)


class ContractCase:
    """Mixed into a trial C{TestCase} that says where the store is."""

    assertEqual: Any
    assertTrue: Any
    assertFalse: Any
    assertIn: Any
    assertNotIn: Any
    assertIsNone: Any
    assertFailure: Any
    addCleanup: Any
    now: Calendar
    address: str
    store: Store
    url: Callable[[], str]  # of a database that is empty or not there yet

    async def setUp(self) -> None:
        self.now = Calendar()
        self.address = self.url()
        self.store = new_store(self.address, self.now)
        await self.store.open()
        self.addCleanup(self.store.close)

    async def project(self, **more: Any) -> Project:
        return await self.store.create_project(Project(**{"id": "", "name": "Team", **more}))

    async def token(self, **more: Any) -> tuple[Token, str]:
        if "project_id" not in more:
            more["project_id"] = (await self.project()).id
        return await self.store.create_token(Token(**{"id": "", **more}))


class ValidatorContract(ContractCase):
    """C{self.validator} stands before C{self.store}."""

    validator: Any

    async def granted(self, secret: str) -> Grant:
        grant = await self.validator.validate_token(secret)
        assert isinstance(grant, Grant)
        return grant

    async def test_provides_the_validator(self) -> None:
        verifyObject(ITokenValidator, self.validator)

    async def test_a_grant_holds_everything_known(self) -> None:
        """The token's owner and all its restrictions are known after one look-up."""
        project = await self.project()
        token, secret = await self.token(
            project_id=project.id,
            expires_at=self.now.now + 60,
            max_requests=3,
            apis=("openai",),
            endpoints=("/v1/*",),
            models=("gpt-*", "o3"),
            ips=("10.0.0.0/8",),
        )
        self.assertEqual(
            await self.granted(secret),
            Grant(
                project_id=project.id,
                token_id=token.id,
                project_active=True,
                expires_at=token.expires_at,
                max_requests=3,
                apis=("openai",),
                endpoints=("/v1/*",),
                models=("gpt-*", "o3"),
                ips=("10.0.0.0/8",),
            ),
        )

    async def test_unknown_tokens(self) -> None:
        for unknown in ("sk-lp-" + "A" * 43, "", "sk-lp-", "x" * 10_000, "ключ", "\ud800", "sk-lp-" + "A" * 42 + "\n"):
            await self.assertFailure(self.validator.validate_token(unknown), TokenNotFound)
            await self.assertFailure(self.validator.validate_token_with_tracking(unknown), TokenNotFound)

    async def test_a_deactivated_token(self) -> None:
        token, secret = await self.token()
        await self.granted(secret)
        await self.store.deactivate_token(token.id)
        await self.assertFailure(self.validator.validate_token(secret), TokenInactive)
        await self.assertFailure(self.validator.validate_token_with_tracking(secret), TokenInactive)

    async def test_an_expired_token(self) -> None:
        """A token ends on its second, also when it was used a moment before."""
        _, secret = await self.token(expires_at=self.now.now + 60, max_requests=5)
        await self.granted(secret)
        await self.validator.validate_token_with_tracking(secret)
        self.now.now += 60
        await self.assertFailure(self.validator.validate_token(secret), TokenExpired)
        await self.assertFailure(self.validator.validate_token_with_tracking(secret), TokenExpired)

    async def test_an_inactive_project(self) -> None:
        """The token is still known, and the grant says that its project is not active."""
        project = await self.project()
        _, secret = await self.token(project_id=project.id)
        self.assertTrue((await self.granted(secret)).project_active)
        await self.store.update_project(replace(project, active=False))
        self.assertFalse((await self.granted(secret)).project_active)

    async def test_an_inactive_project_costs_no_use(self) -> None:
        project = await self.project(active=False)
        token, secret = await self.token(project_id=project.id, max_requests=1)
        for _ in range(3):
            self.assertFalse((await self.validator.validate_token_with_tracking(secret)).project_active)
        self.assertEqual((await self.store.get_token(token.id)).request_count, 0)

    async def test_max_requests(self) -> None:
        """After the last allowed use every further one is refused, and the count stays where it is."""
        token, secret = await self.token(max_requests=2)
        for _ in range(2):
            await self.validator.validate_token_with_tracking(secret)
        for _ in range(2):
            await self.assertFailure(self.validator.validate_token_with_tracking(secret), QuotaExceeded)
        stored = await self.store.get_token(token.id)
        self.assertEqual(stored.request_count, 2)
        self.assertTrue(stored.last_used_at)
        await self.granted(secret)

    async def test_max_requests_raised(self) -> None:
        """An operator's change counts at once."""
        token, secret = await self.token(max_requests=0)
        await self.assertFailure(self.validator.validate_token_with_tracking(secret), QuotaExceeded)
        await self.store.update_token(replace(token, max_requests=1))
        await self.validator.validate_token_with_tracking(secret)
        await self.assertFailure(self.validator.validate_token_with_tracking(secret), QuotaExceeded)

    async def test_max_requests_at_once(self) -> None:
        """However many ask at the same moment, exactly as many as allowed succeed."""
        token, secret = await self.token(max_requests=10)
        asked = [self.validator.validate_token_with_tracking(secret) for _ in range(60)]
        answers = await DeferredList(asked, consumeErrors=True)
        self.assertEqual(sum(ok for ok, _ in answers), 10)
        self.assertEqual({type(answer.value) for ok, answer in answers if not ok}, {QuotaExceeded})
        self.assertEqual((await self.store.get_token(token.id)).request_count, 10)


class StoreContract(ValidatorContract):
    @property
    def validator(self) -> Any:  # type: ignore[override]
        return self.store

    async def test_provides_its_interfaces(self) -> None:
        for interface in (IProjectStore, ITokenStore, ITokenValidator, IBudgetStore, IWatchable):
            verifyObject(interface, self.store)

    async def test_many_tokens_at_once(self) -> None:
        """Each has the answer that it has alone, in the order of the questions."""
        _, secret = await self.token()
        revoked, old = await self.token()
        _, expired = await self.token(expires_at=self.now.now - 1)
        await self.store.deactivate_token(revoked.id)
        unknown = "sk-lp-" + "A" * 43
        answers = await self.store.validate_tokens([unknown, secret, old, "x", expired, secret])
        self.assertEqual(answers[1], await self.store.validate_token(secret))
        self.assertEqual(answers[5], answers[1])
        kinds = [type(answer) for answer in answers]
        self.assertEqual(kinds, [TokenNotFound, Grant, TokenInactive, TokenNotFound, TokenExpired, Grant])
        self.assertEqual([type(answer) for answer in await self.store.validate_tokens(["x"])], [TokenNotFound])

    async def test_ping(self) -> None:
        await self.store.ping()

    # projects

    async def test_a_new_project(self) -> None:
        """It has an id, its times and masked keys; the keys themselves are not shown."""
        made = await self.project(name="Équipe 😀", api_keys={"openai": OPENAI_KEY})
        self.assertEqual(len(made.id), 32)
        self.assertEqual((made.name, made.active, made.deactivated_at), ("Équipe 😀", True, None))
        self.assertEqual(dict(made.api_keys), {})
        self.assertEqual(dict(made.masked_keys), {"openai": "sk-p…cdef"})
        self.assertTrue(1_700_000_000 < made.created_at == made.updated_at < 1_700_000_001)
        self.assertEqual(await self.store.get_project_by_id(made.id), made)

    async def test_its_key(self) -> None:
        project = await self.project(api_keys={"openai": OPENAI_KEY})
        self.assertEqual(await self.store.get_api_key_for_project(project.id, "openai"), OPENAI_KEY)
        self.assertEqual(await self.store.get_api_key_for_project(project.id), OPENAI_KEY)

    async def test_the_only_key_of_two(self) -> None:
        """Which key is meant must be clear."""
        project = await self.project(api_keys={"openai": "a", "mistral": "b"})
        self.assertEqual(await self.store.get_api_key_for_project(project.id, "mistral"), "b")
        await self.assertFailure(self.store.get_api_key_for_project(project.id), UpstreamAuthError)

    async def test_no_key(self) -> None:
        project = await self.project(api_keys={"openai": OPENAI_KEY})
        await self.assertFailure(self.store.get_api_key_for_project(project.id, "google"), UpstreamAuthError)
        await self.assertFailure(self.store.get_api_key_for_project("nobody", "openai"), UpstreamAuthError)

    async def test_several_keys(self) -> None:
        """In their order, shown masked, replaced together; of those that are kept elsewhere none is found here."""
        further = {"openai": ("second-of-its-keys", SecretReference("env:B"), "fourth-of-its-keys")}
        project = await self.project(api_keys={"openai": OPENAI_KEY, "mistral": "m"}, further_keys=further)
        shown = (await self.store.get_project_by_id(project.id)).masked_further_keys
        self.assertEqual(shown["openai"][1], "env:B")
        self.assertNotIn("second-of-its-keys", repr(shown))
        found = await self.store.get_api_keys_for_project(project.id, "openai")
        self.assertEqual(list(found), [OPENAI_KEY, "second-of-its-keys", "fourth-of-its-keys"])
        self.assertEqual(list(await self.store.get_api_keys_for_project(project.id, "mistral")), ["m"])
        self.assertEqual(await self.store.secret_references(), ["env:B"])
        keys = {
            "api_keys": {"openai": SecretReference("env:A")},
            "further_keys": {"openai": (SecretReference("env:C"),)},
        }
        await self.store.update_project(replace(project, **keys))
        self.assertEqual(await self.store.secret_references(), ["env:A", "env:C"])
        await self.assertFailure(self.store.get_api_keys_for_project(project.id, "openai"), UpstreamAuthError)
        self.assertEqual(list(await self.store.get_api_keys_for_project(project.id, "mistral")), ["m"])

    async def test_a_reference_instead_of_a_key(self) -> None:
        """It is shown as it is; without anybody who resolves it, there is no key."""
        project = await self.project(api_keys={"openai": SecretReference("env:A"), "mistral": "b"})
        self.assertEqual(project.masked_keys, {"openai": "env:A", "mistral": "…"})
        await self.assertFailure(self.store.get_api_key_for_project(project.id, "openai"), UpstreamAuthError)
        self.assertEqual(await self.store.secret_references(), ["env:A"])
        await self.store.update_project(replace(project, api_keys={"openai": OPENAI_KEY}))
        self.assertEqual(await self.store.secret_references(), [])
        self.assertEqual(await self.store.get_api_key_for_project(project.id, "openai"), OPENAI_KEY)

    async def test_a_chosen_id(self) -> None:
        self.assertEqual((await self.project(id="team-1")).id, "team-1")
        await self.assertFailure(self.store.create_project(Project("team-1", "Again")), Conflict)
        self.assertEqual((await self.store.get_project_by_id("team-1")).name, "Team")

    async def test_changed_keys(self) -> None:
        """Only the keys that are named change; an empty one is removed."""
        project = await self.project(api_keys={"openai": "a", "mistral": "b", "google": "c"})
        changed = await self.store.update_project(
            replace(project, name="New", api_keys={"openai": OPENAI_KEY, "mistral": "", "azure": "d"})
        )
        self.assertEqual(sorted(changed.masked_keys), ["azure", "google", "openai"])
        self.assertEqual((changed.name, changed.created_at), ("New", project.created_at))
        self.assertTrue(changed.updated_at > project.updated_at)
        self.assertEqual(await self.store.get_api_key_for_project(project.id, "openai"), OPENAI_KEY)

    async def test_a_deactivated_project(self) -> None:
        """The first time is kept, until it is activated again."""
        project = await self.project()
        self.assertIs(await self.store.get_project_active(project.id), True)
        first = await self.store.update_project(replace(project, active=False))
        self.assertTrue(first.deactivated_at)
        self.assertIs(await self.store.get_project_active(project.id), False)
        again = await self.store.update_project(replace(project, active=False, revision=0))
        self.assertEqual(again.deactivated_at, first.deactivated_at)
        self.assertIsNone((await self.store.update_project(replace(project, active=True, revision=0))).deactivated_at)

    async def test_all_projects(self) -> None:
        one = await self.project(name="One", api_keys={"openai": OPENAI_KEY})
        two = await self.project(name="Two")
        self.assertEqual(await self.store.list_projects(), [one, two])

    async def test_a_deleted_project(self) -> None:
        """Its keys and tokens go with it."""
        project = await self.project(api_keys={"openai": OPENAI_KEY})
        token, secret = await self.token(project_id=project.id)
        await self.store.delete_project(project.id)
        await self.assertFailure(self.store.get_project_by_id(project.id), NotFound)
        await self.assertFailure(self.store.get_token(token.id), NotFound)
        await self.assertFailure(self.store.validate_token(secret), TokenNotFound)
        await self.assertFailure(self.store.get_api_key_for_project(project.id), UpstreamAuthError)

    async def test_no_such_project(self) -> None:
        nobody = Project("nobody", "Nobody")
        for asked in (
            self.store.get_project_active("nobody"),
            self.store.get_project_by_id("nobody"),
            self.store.update_project(nobody),
            self.store.delete_project("nobody"),
            self.store.create_token(Token("", "nobody")),
            self.store.revoke_project_tokens("nobody"),
        ):
            await self.assertFailure(asked, NotFound)
        self.assertEqual(await self.store.list_tokens(), [])

    async def test_names_that_cannot_be_kept(self) -> None:
        """A name that no database takes is the caller's mistake, not an outage."""
        await self.assertFailure(self.store.create_project(Project("", "\ud800")), Invalid)
        await self.assertFailure(
            self.store.create_token(Token("", (await self.project()).id, max_requests=2**70)), Invalid
        )

    # tokens

    async def test_a_new_token(self) -> None:
        project = await self.project()
        token, secret = await self.token(project_id=project.id, name="CI", request_count=7)
        self.assertEqual(len(token.id), 32)
        self.assertEqual((token.name, token.project_id, token.active), ("CI", project.id, True))
        self.assertEqual(token.prefix, secret[:10])
        self.assertEqual((token.request_count, token.last_used_at, token.deactivated_at), (0, None, None))
        self.assertTrue(token.created_at > project.created_at)
        self.assertEqual(await self.store.get_token(token.id), token)

    async def test_all_tokens(self) -> None:
        one, _ = await self.token()
        two, _ = await self.token(project_id=one.project_id)
        other, _ = await self.token()
        self.assertEqual(await self.store.list_tokens(), [one, two, other])
        self.assertEqual(await self.store.list_tokens(one.project_id), [one, two])

    async def test_pages_of_tokens(self) -> None:
        """Oldest first, of all or of one project; each page begins where the last one ended, whatever came between."""
        project = await self.project()
        mine = [(await self.token(project_id=project.id))[0] for _ in range(5)]
        other, _ = await self.token()
        first = await self.store.token_page(PageRequest(2))
        self.assertEqual((first.items, first.total), (mine[:2], 6))
        await self.store.delete_project((await self.project()).id)
        late, _ = await self.token(project_id=project.id)
        second = await self.store.token_page(PageRequest(4, cursor=first.next_cursor))
        self.assertEqual((second.items, second.total), ([*mine[2:], other], None))
        third = await self.store.token_page(PageRequest(4, cursor=second.next_cursor))
        self.assertEqual(third, ([late], None, ""))
        self.assertEqual(
            await self.store.token_page(PageRequest(2, 3), ListFilter((project.id,))),
            ([*mine[3:]], 6, self.behind(mine[4])),
        )
        self.assertEqual(
            await self.store.token_page(PageRequest(3, 4), ListFilter((project.id,))), ([mine[4], late], 6, "")
        )
        self.assertEqual(await self.store.token_page(PageRequest(3, 9)), ([], 7, ""))
        self.assertEqual(await self.store.token_page(PageRequest(), ListFilter(("nobody",))), ([], 0, ""))

    async def test_some_of_a_list(self) -> None:
        """By project, by whether they are active, by a part of the name; what is counted is what is listed."""
        one, two = await self.project(name="Alpha 50%"), await self.project(name="beta", active=False)
        for wanted, listed in (
            (ListFilter((one.id,)), [one]),
            (ListFilter(()), []),
            (ListFilter(active=False), [two]),
            (ListFilter(search="ALPHA"), [one]),
            (ListFilter(search="%"), [one]),
            (ListFilter((one.id, two.id), True, "et"), []),
        ):
            page = await self.store.project_page(PageRequest(), wanted)
            self.assertEqual((page.items, page.total), (listed, len(listed)), wanted)
        await self.token(project_id=one.id, name="Laptop")
        other, _ = await self.token(project_id=two.id, name="ci")
        await self.store.deactivate_token(other.id)
        for wanted, names in (
            (ListFilter((two.id,)), ["ci"]),
            (ListFilter(active=True), ["Laptop"]),
            (ListFilter(search="lap"), ["Laptop"]),
        ):
            found = await self.store.token_page(PageRequest(), wanted)
            self.assertEqual(([each.name for each in found.items], found.total), (names, 1), wanted)

    async def test_those_with_a_label(self) -> None:
        """By whole labels, in their own case, and by texts of the metadata; page by page as all lists."""
        core = await self.project(labels=("core", "team=core"), metadata=(("team", "core"), ("note", 'a"team": "x')))
        other = await self.project(labels=("Core", "core-2"), metadata=(("a.b", 'Zoë, "q"'),))
        for labels, listed in (
            (("core",), [core]),
            (("Core",), [other]),
            (("cor",), []),
            (("core", "team=core"), [core]),
            (("core", "Core"), []),
            (("team=core",), [core]),
            (("team=Core",), []),
            (("team=x",), []),
            (('a.b=Zoë, "q"',), [other]),
            (('Core", "core-2',), []),
            (('x=Core", "core-2',), []),
        ):
            page = await self.store.project_page(PageRequest(), ListFilter(labels=labels))
            self.assertEqual((page.items, page.total), (listed, len(listed)), labels)
        made = [
            (await self.token(project_id=core.id, labels=("ci",) if number % 2 else ("dev",), metadata=(("n", "1"),)))[
                0
            ]
            for number in range(7)
        ]
        wanted = ListFilter((core.id,), labels=("ci", "n=1"))
        first = await self.store.token_page(PageRequest(2), wanted)
        self.assertEqual((first.items, first.total), ([made[1], made[3]], 3))
        rest = await self.store.token_page(PageRequest(2, cursor=first.next_cursor), wanted)
        self.assertEqual((rest.items, rest.next_cursor), ([made[5]], ""))

    def behind(self, item: Token | Project) -> str:
        return encode_cursor([item.created_at, item.id])

    async def test_tokens_of_one_moment(self) -> None:
        """None is left out or shown twice where the time does not tell them apart."""
        self.now.step = 0.0
        project = await self.project()
        made = [(await self.token(project_id=project.id))[0].id for _ in range(7)]
        seen: list[str] = []
        cursor = ""
        while True:
            page = await self.store.token_page(PageRequest(2, cursor=cursor))
            seen += [token.id for token in page.items]
            cursor = page.next_cursor
            if not cursor:
                break
        self.assertEqual(seen, sorted(made))

    async def test_pages_of_projects(self) -> None:
        """With the keys of each, masked."""
        made = [await self.project(name=str(n), api_keys={"openai": OPENAI_KEY}) for n in range(3)]
        page = await self.store.project_page(PageRequest(2))
        self.assertEqual(page, (made[:2], 3, self.behind(made[1])))
        self.assertEqual(await self.store.project_page(PageRequest(2, cursor=page.next_cursor)), (made[2:], None, ""))

    async def test_what_is_no_cursor(self) -> None:
        for cursor in (
            "x",
            "é",
            "W10",
            encode_cursor(["a", "b"]),
            encode_cursor([1.0]),
            encode_cursor([1.0, "a", "b"]),
            "A" * 9999,
        ):
            await self.assertFailure(self.store.token_page(PageRequest(cursor=cursor)), Invalid)
            await self.assertFailure(self.store.project_page(PageRequest(cursor=cursor)), Invalid)

    async def test_a_changed_token(self) -> None:
        token, _ = await self.token()
        changed = await self.store.update_token(
            replace(
                token,
                project_id="other",
                prefix="other",
                request_count=9,
                created_at=0.0,
                name="New",
                expires_at=5.0,
                max_requests=2,
                models=("a", "b"),
            )
        )
        self.assertEqual(
            changed, replace(token, name="New", expires_at=5.0, max_requests=2, models=("a", "b"), revision=2)
        )

    async def test_revisions(self) -> None:
        """Each change makes a new one; who changes what he has read before is told that it has changed since."""
        project, (token, _) = await self.project(), await self.token()
        self.assertEqual((project.revision, token.revision), (1, 1))
        self.assertEqual((await self.store.update_project(replace(project, name="a"))).revision, 2)
        self.assertEqual((await self.store.update_token(replace(token, name="a"))).revision, 2)
        await self.assertFailure(self.store.update_project(replace(project, name="b")), ChangedMeanwhile)
        await self.assertFailure(self.store.update_token(replace(token, name="b")), ChangedMeanwhile)
        await self.assertFailure(self.store.update_token(replace(token, id="nobody")), NotFound)
        self.assertEqual((await self.store.update_project(replace(project, name="c", revision=0))).revision, 3)
        self.assertEqual((await self.store.deactivate_token(token.id)).revision, 3)
        self.assertEqual((await self.store.deactivate_token(token.id)).revision, 3)
        self.assertEqual((await self.store.get_project_by_id(project.id)).name, "c")

    async def test_deactivating_twice(self) -> None:
        """The time of the first deactivation is the one that is kept."""
        token, _ = await self.token()
        first = await self.store.deactivate_token(token.id)
        self.assertFalse(first.active)
        self.assertTrue(first.deactivated_at)
        self.assertEqual(await self.store.deactivate_token(token.id), first)
        self.assertEqual((await self.store.update_token(replace(first, name="x"))).deactivated_at, first.deactivated_at)
        self.assertIsNone((await self.store.update_token(replace(first, active=True, revision=0))).deactivated_at)

    async def test_revoking_a_projects_tokens(self) -> None:
        one, _ = await self.token()
        two, _ = await self.token(project_id=one.project_id)
        _, other_secret = await self.token()
        first = await self.store.deactivate_token(two.id)
        self.assertEqual(await self.store.revoke_project_tokens(one.project_id), 1)
        self.assertFalse((await self.store.get_token(one.id)).active)
        self.assertEqual(await self.store.get_token(two.id), first)
        await self.store.validate_token(other_secret)

    async def test_no_such_token(self) -> None:
        for asked in (
            self.store.get_token("none"),
            self.store.update_token(Token("none", "none")),
            self.store.deactivate_token("none"),
        ):
            await self.assertFailure(asked, NotFound)

    async def test_counted_uses(self) -> None:
        """Batches add up, and the last use is the latest, in whatever order they come."""
        one, _ = await self.token()
        two, _ = await self.token()
        await self.store.count_uses({one.id: (3, 200.0), two.id: (1, 100.0), "gone": (1, 1.0)})
        await self.store.count_uses({one.id: (2, 150.0)})
        await self.store.count_uses({})
        stored = await self.store.get_token(one.id)
        self.assertEqual((stored.request_count, stored.last_used_at), (5, 200.0))
        self.assertEqual((await self.store.get_token(two.id)).last_used_at, 100.0)

    async def test_counted_cache_hits(self) -> None:
        """They add up beside the uses, whether or not the token has a limit."""
        token, _ = await self.token(max_requests=1)
        await self.store.count_cache_hits({token.id: (3, 200.0), "gone": (1, 1.0)})
        await self.store.count_cache_hits({token.id: (2, 150.0)})
        stored = await self.store.get_token(token.id)
        self.assertEqual((stored.cache_hits, stored.request_count, stored.last_used_at), (5, 0, 200.0))

    # limits and budgets

    async def test_limits_are_kept(self) -> None:
        """Of a project and of a token; a grant knows both; they can be changed and lifted."""
        wide = Allowance(concurrency=9, budget_usd=(Budget(10**15, "day"), Budget(5, "month")))
        narrow = Allowance(requests_per_minute=60, tokens_per_minute=10**12, budget_tokens=(Budget(7, "lifetime"),))
        project = await self.project(allowance=wide)
        token, secret = await self.token(project_id=project.id, allowance=narrow)
        self.assertEqual((project.allowance, token.allowance), (wide, narrow))
        self.assertEqual((await self.store.get_token(token.id)).allowance, narrow)
        grant = await self.granted(secret)
        self.assertEqual((grant.allowance, grant.project_allowance), (narrow, wide))
        await self.store.update_project(replace(project, allowance=narrow))
        self.assertEqual((await self.store.get_project_by_id(project.id)).allowance, narrow)
        await self.store.update_project(replace(project, allowance=UNLIMITED, revision=0))
        changed = await self.store.update_token(replace(token, allowance=UNLIMITED))
        self.assertEqual(changed.allowance, UNLIMITED)
        grant = await self.granted(secret)
        self.assertEqual((grant.allowance, grant.project_allowance), (None, None))

    async def take(self, key: str, least: int, most: int, limit: int, store: Store | None = None) -> tuple[int, int]:
        advance = await (store or self.store).take_budget(key, least, most, limit, 0.0)
        return advance.amount, advance.spent

    async def test_policies_are_kept(self) -> None:
        """Of both, as they were stored, and in the grant; where there is none, the grant says so by None."""
        policy = AccessPolicy(
            methods=("POST",),
            max_output_tokens=100,
            param_whitelist=(("model", ("gpt-*", "o3")), ("user", ("a",))),
            required_params=("user", "max_tokens|max_completion_tokens"),
            required_headers=("x-team",),
            header_values=(("x-team", ("core", "data-*")),),
        )
        shared = AccessPolicy(apis=("openai",), endpoints=("/v1/**",), models=("gpt-*",), ips=("10.0.0.0/8",))
        project = await self.project(policy=shared)
        token, secret = await self.token(project_id=project.id, policy=policy)
        self.assertEqual((await self.store.get_project_by_id(project.id)).policy, shared)
        self.assertEqual((await self.store.get_token(token.id)).policy, policy)
        grant = await self.granted(secret)
        self.assertEqual((grant.policy, grant.project_policy), (policy, shared))
        await self.store.update_token(replace(token, policy=replace(policy, max_output_tokens=5)))
        self.assertEqual((await self.granted(secret)).policy, replace(policy, max_output_tokens=5))
        await self.store.update_token(replace(token, policy=ALL_ALLOWED, revision=0))
        await self.store.update_project(replace(project, policy=ALL_ALLOWED))
        grant = await self.granted(secret)
        self.assertEqual((grant.policy, grant.project_policy), (None, None))
        self.assertEqual((await self.store.get_token(token.id)).policy, ALL_ALLOWED)

    async def test_a_budget_is_taken_in_parts(self) -> None:
        """As much as is wanted, then what is left if that is enough, then nothing."""
        self.assertEqual(await self.take("k", 10, 60, 100), (60, 60))
        self.assertEqual(await self.take("k", 10, 60, 100), (40, 100))
        self.assertEqual(await self.take("k", 1, 60, 100), (0, 100))
        self.assertEqual(await self.take("other", 101, 101, 100), (0, 0))
        self.assertEqual(await self.store.budgets_spent(["k", "other", "none"]), {"k": 100, "other": 0})

    async def test_a_budget_is_given_back(self) -> None:
        """What was not needed; what was spent beyond it is charged."""
        await self.take("k", 1, 60, 100)
        await self.take("l", 1, 60, 10**15)
        await self.store.give_budgets({"k": 50, "l": -(10**15), "none": 5})
        self.assertEqual(await self.store.budgets_spent(["k", "l", "none"]), {"k": 10, "l": 10**15 + 60})
        self.assertEqual(await self.take("k", 90, 90, 100), (90, 100))

    async def process(self, run: str) -> Store:
        """Another process on the same database."""
        store = new_store(self.address, self.now, run=run)
        await store.open()
        self.addCleanup(store.close)
        return store

    async def test_what_a_process_has_in_advance(self) -> None:
        """It is known of each what it took; what its ledger accounts for is spent, the rest comes back in the end."""
        one, two = await self.process("one"), await self.process("two")
        self.assertEqual(await self.take("k", 1, 60, 100, one), (60, 60))
        self.assertEqual(await two.take_budget("k", 1, 60, 100, 0.0), (40, 100, 60))
        self.assertEqual(await two.take_budget("k", 1, 1, 100, 0.0), (0, 100, 60))
        await one.give_budgets({"k": 10})
        await self.store.write(lambda c: budgets.account(c, "one", {"k": 30, "none": 5}, self.now()))
        await two.account_budgets({"k": 15})
        self.assertEqual(await two.take_budget("k", 20, 20, 100, 0.0), (0, 90, 20))
        self.assertEqual(await self.store.budgets_spent(["k"]), {"k": 90})
        for run in ("one", "two", "two"):
            await self.store.write(lambda c, run=run: budgets.close(c, run))
        self.assertEqual(await self.store.budgets_spent(["k"]), {"k": 30 + 15})
        # One that ends after its journal was closed has nothing left to give.
        await one.give_budgets({"k": 20})
        self.assertEqual(await self.store.budgets_spent(["k"]), {"k": 45})

    async def test_what_a_process_overspent(self) -> None:
        """Requests took more than it had: that is spent, and not given back with the rest."""
        one = await self.process("one")
        await self.take("k", 1, 10, 100, one)
        await one.give_budgets({"k": -30})
        await self.store.write(lambda c: budgets.account(c, "one", {"k": 40}, self.now()))
        await self.store.write(lambda c: budgets.close(c, "one"))
        self.assertEqual(await self.store.budgets_spent(["k"]), {"k": 40})

    async def test_what_a_process_has_that_is_not_heard_of_any_more(self) -> None:
        """Nobody waits for it to come back."""
        one = await self.process("one")
        await self.take("k", 1, 100, 100, one)
        self.assertEqual((await self.store.take_budget("k", 1, 1, 100, 0.0)).elsewhere, 100)
        self.now.now += budgets.ADVANCE_COUNTS_SECONDS + 1
        self.assertEqual((await self.store.take_budget("k", 1, 1, 100, 0.0)).elsewhere, 0)

    async def test_budgets_that_are_over_are_forgotten(self) -> None:
        for key, ends in (("old", 10.0), ("new", 30.0), ("ever", 0.0)):
            await self.store.take_budget(key, 1, 1, 5, ends)
        self.assertEqual(await self.store.forget_budgets(20.0), 1)
        self.assertEqual(set(await self.store.budgets_spent(["old", "new", "ever"])), {"new", "ever"})

    async def test_a_budget_taken_by_many_at_once(self) -> None:
        """All of it, and no more."""
        taken = await gatherResults([self.store.take_budget("k", 7, 7, 100, 0.0) for _ in range(40)])
        self.assertEqual(sum(advance.amount for advance in taken), 98)

    async def test_a_use_is_taken_back(self) -> None:
        token, secret = await self.token(max_requests=1)
        await self.store.validate_token_with_tracking(secret)
        last = (await self.store.get_token(token.id)).last_used_at
        await self.store.count_uses({token.id: (-1, 0.0)})
        stored = await self.store.get_token(token.id)
        self.assertEqual((stored.request_count, stored.last_used_at), (0, last))
        await self.store.validate_token_with_tracking(secret)

    # watching

    async def test_watchers_hear_of_every_change(self) -> None:
        heard: list[str] = []
        self.store.watch(heard.append)
        project = await self.project()
        token, _ = await self.token(project_id=project.id, max_requests=1)
        await self.store.update_project(project)
        await self.store.update_token(token)
        await self.store.deactivate_token(token.id)
        await self.store.revoke_project_tokens(project.id)
        await self.store.delete_project(project.id)
        self.assertEqual(heard, [project.id] * 7)

    async def test_watchers_hear_of_nothing_else(self) -> None:
        token, secret = await self.token()
        heard: list[str] = []
        self.store.watch(heard.append)
        await self.store.validate_token_with_tracking(secret)
        await self.store.count_uses({token.id: (1, 1.0)})
        await self.assertFailure(self.store.deactivate_token("none"), NotFound)
        self.assertEqual(heard, [])

    async def test_watchers_hear_before_the_caller(self) -> None:
        """Who changed something sees the change at once, nothing remembered stands between."""
        project = await self.project()
        order: list[str] = []
        self.store.watch(lambda _: order.append("watcher"))
        changing: Deferred[Project] = self.store.update_project(project)
        await changing.addCallback(lambda _: order.append("caller"))
        self.assertEqual(order, ["watcher", "caller"])

    # changes that others see

    async def another(self) -> Store:
        """The same database, as another process has it."""
        other = new_store(self.address, self.now)
        await other.open()
        self.addCleanup(other.close)
        return other

    async def test_every_change_is_numbered(self) -> None:
        """Another process hears of each project that has changed, and of nothing else."""
        other = await self.another()
        seen = (await other.changes(None)).epoch
        first, second = await self.project(), await self.project()
        token, secret = await self.token(project_id=first.id, max_requests=5)
        self.assertEqual(await other.changes(seen), Changes(seen + 3, (first.id, second.id)))
        seen += 3
        for change in (
            lambda: self.store.update_token(token),
            lambda: self.store.deactivate_token(token.id),
            lambda: self.store.revoke_project_tokens(first.id),
            lambda: self.store.update_project(first),
            lambda: self.store.delete_project(first.id),
        ):
            await change()
            self.assertEqual(await other.changes(seen), Changes(seen + 1, (first.id,)))
            seen += 1
        await self.assertFailure(self.store.deactivate_token("none"), NotFound)
        _, secret = await self.token(project_id=second.id, max_requests=5)
        await self.store.validate_token_with_tracking(secret)
        await self.store.count_uses({token.id: (1, 1.0)})
        self.assertEqual(await other.changes(seen), Changes(seen + 1, (second.id,)))
        self.assertEqual(await other.changes(seen + 1), Changes(seen + 1, ()))

    @pytest.mark.long("4 s: more changes than are kept")
    async def test_who_knows_nothing(self) -> None:
        """For one who has just started, or was away for too long, or knows another database, all may have changed."""
        project = await self.project()
        epoch = (await self.store.changes(None)).epoch
        for asked in (None, -1, epoch + 1, 10**12):
            self.assertEqual(await self.store.changes(asked), Changes(epoch, None))
        for _ in range(MAX_CHANGES):
            await self.store.update_project(replace(project, revision=0))
        self.assertEqual(await self.store.changes(epoch), Changes(epoch + MAX_CHANGES, None))
        self.assertEqual(await self.store.changes(epoch + 1), Changes(epoch + MAX_CHANGES, (project.id,)))

    async def test_no_change_is_missed(self) -> None:
        """Two processes change, a third looks all the while: whatever the order of the commits, it hears of each."""
        other, looking = await self.another(), await self.another()
        projects = [await self.project() for _ in range(60)]
        seen = (await looking.changes(None)).epoch
        writes = [(self.store, other)[n % 2].update_project(project) for n, project in enumerate(projects)]
        done = gatherResults(writes, consumeErrors=True)
        heard: list[str] = []
        finished = False
        while not finished:
            finished = bool(done.called)
            found = await looking.changes(seen)
            seen = found.epoch
            heard += found.projects or ()
        await done
        self.assertEqual(sorted(heard), sorted(p.id for p in projects))

    async def test_announced(self) -> None:
        """Watchers hear of changes made elsewhere too; who tells others hears only of those made here."""
        heard: list[str] = []
        told: list[str] = []
        self.store.watch(heard.append)
        self.store.on_commit(told.append)
        project = await self.project()
        self.store.announce("elsewhere")
        self.assertEqual((heard, told), ([project.id, "elsewhere"], [project.id]))

    # many at once

    async def test_many_at_once(self) -> None:
        """Readers and writers together all get their answers."""
        _, secret = await self.token()
        writes = [self.project(name=str(n)) for n in range(20)]
        reads = [self.store.validate_token(secret) for _ in range(50)]
        grants = await gatherResults([*reads, *(Deferred.fromCoroutine(write) for write in writes)], consumeErrors=True)
        self.assertEqual(len(grants), 70)
        self.assertEqual(len(await self.store.list_projects()), 21)
