"""What makes a JWT good, and how its issuer's keys are had: by an issuer in memory, at a clock of the test's own."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc.jwk import OKPKey, RSAKey
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from llmproxy.auth.oidc.factory import OidcValidatorFactory
from llmproxy.auth.oidc.issuer_client import IssuerClient
from llmproxy.auth.oidc.validator import OidcValidator
from llmproxy.config.auth_settings import OidcSettings
from llmproxy.errors import TokenExpired, TokenNotFound
from llmproxy.errors.identity import ClaimsNotAllowed, IdentityProviderUnavailable, TokenInvalid, TokenNotYetValid
from llmproxy.interfaces import IHealthChecked, IInstrumented, ITokenValidator, ITokenValidatorFactory, IWatchable
from llmproxy.model import Grant
from tests.unit.auth.oidc.issuer import EC, ISSUER, NOW, RSA, MemoryIssuer, token


class ValidatorCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.issuer = MemoryIssuer()

    def validator(self, **settings: Any) -> OidcValidator:
        chosen = {"issuer": ISSUER, "audience": ["llmproxy"], "default_project": "p", **settings}
        settings = OidcSettings.model_validate(chosen)
        client = IssuerClient(settings, self.clock, self.issuer)
        validator = OidcValidator(settings, self.clock, lambda: NOW + self.clock.seconds(), client)
        validator.startService()
        self.addCleanup(validator.stopService)
        return validator

    def grant(self, validator: OidcValidator, jwt: str) -> Grant:
        grant = self.successResultOf(validator.validate_token(jwt))
        assert isinstance(grant, Grant)
        return grant

    def refused(self, validator: OidcValidator, jwt: str, kind: type[Exception]) -> str:
        return str(self.failureResultOf(validator.validate_token(jwt), kind).value)


class JwtTests(ValidatorCase):
    def test_what_it_provides(self) -> None:
        verifyObject(ITokenValidatorFactory, OidcValidatorFactory())
        for interface in (ITokenValidator, IInstrumented, IHealthChecked, IWatchable):
            verifyObject(interface, self.validator())

    def test_good_ones(self) -> None:
        validator = self.validator()
        grant = self.grant(validator, token())
        self.assertRegex(grant.token_id, r"^oidc:[0-9a-f]{8}:ada$")
        self.assertEqual(grant.expires_at, NOW + 600 + 30)
        for jwt in (
            token(EC),
            token(aud=["x", "llmproxy"]),
            token(header={"kid": None}),
            token(header={"typ": "at+jwt"}),
        ):
            self.assertEqual(self.grant(validator, jwt).token_id, grant.token_id)
        self.assertEqual((validator.accepted, validator.refused), (5, 0))

    def test_edwards_curves(self) -> None:
        key = OKPKey.generate_key("Ed25519", {"kid": "ed"})
        self.issuer.publish(key)
        self.grant(self.validator(), token(key))

    def test_what_is_none(self) -> None:
        """It is left to the next validator."""
        validator = self.validator()
        for other in ("", "x", "a.b.c", "eyJ.eyJ.", "eyJhbGciOiJub25lIn0.bm90IGpzb24.x", token(iss="https://other")):
            self.refused(validator, other, TokenNotFound)
        self.assertEqual(validator.refused, 0)

    def test_clock_skew(self) -> None:
        """Both ways, and no longer than the settings say."""
        for skew, seconds in (("0", 0), ("10s", 10)):
            validator = self.validator(clock_skew=skew if seconds else 0)
            self.grant(validator, token(exp=NOW - seconds + 1))
            self.refused(validator, token(exp=NOW - seconds), TokenExpired)
            for name in ("nbf", "iat"):
                self.grant(validator, token(**{name: NOW + seconds}))
                self.refused(validator, token(**{name: NOW + seconds + 1}), TokenNotYetValid)
        with self.assertRaisesRegex(ValueError, "at most 300s"):
            self.validator(clock_skew="6m")

    def test_algorithms(self) -> None:
        validator = self.validator(algorithms=["ES256"])
        self.grant(validator, token(EC))
        self.assertIn("algorithm", self.refused(validator, token(RSA), TokenInvalid))
        for impossible in ("none", "HS256"):
            with self.assertRaises(ValueError):
                self.validator(algorithms=[impossible])

    def test_keys_that_are_not_used(self) -> None:
        """Too short, for encryption, secret, or broken; and of a set that is none there is nothing to use."""
        short = RSAKey.import_key(rsa.generate_private_key(65537, 1024), {"kid": "short"})
        self.flushWarnings()
        other = RSAKey.generate_key(2048, {"kid": "enc", "use": "enc"})
        broken: list[Any] = [{"kty": "RSA", "n": "!", "e": 5}, {"kty": "oct", "k": "AAAA", "kid": "oct"}, 7, {}]
        public = [each.as_dict(private=False) for each in (short, other, EC)]
        self.issuer.pages[f"{ISSUER}/keys"] = {"keys": [*broken, *public]}
        validator = self.validator()
        self.grant(validator, token(EC))
        for kid in ("short", "oct"):
            self.refused(validator, token(header={"kid": kid}), TokenInvalid)
        self.refused(validator, token(RSAKey.import_key({**other.as_dict(private=True), "use": "sig"})), TokenInvalid)

    def test_without_an_id_two_keys_are_too_many(self) -> None:
        self.issuer.publish(EC, RSA, RSAKey.generate_key(2048, {"kid": "more"}))
        validator = self.validator()
        self.refused(validator, token(header={"kid": None}), TokenInvalid)
        self.grant(validator, token(EC, header={"kid": None}))


class KeyTests(ValidatorCase):
    def test_a_url_of_its_own(self) -> None:
        self.issuer.pages = {"https://keys.example.com/k": self.issuer.pages[f"{ISSUER}/keys"]}
        self.grant(self.validator(jwks_url="https://keys.example.com/k"), token())
        self.assertEqual(self.issuer.asked, ["https://keys.example.com/k"])

    def test_a_discovery_document_that_is_not_to_be_trusted(self) -> None:
        """Of another issuer, with keys somewhere without TLS, too long, or no document at all."""
        where = f"{ISSUER}/.well-known/openid-configuration"
        for document in (
            {"issuer": f"{ISSUER}/", "jwks_uri": f"{ISSUER}/keys"},
            {"issuer": ISSUER, "jwks_uri": "http://id.example.com/keys"},
            {"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"},
            {"issuer": ISSUER},
            [ISSUER],
            b"x" * 600_000,
            b"[" * 100_000,
        ):
            self.issuer.pages[where] = document
            self.refused(self.validator(), token(), IdentityProviderUnavailable)

    def test_without_tls(self) -> None:
        """Only with allow_http, or on this machine."""
        with self.assertRaisesRegex(ValueError, "issuer must begin with https"):
            self.validator(issuer="http://id.example.com")
        self.validator(issuer="http://127.0.0.1:8080")
        self.issuer.pages[f"{ISSUER}/.well-known/openid-configuration"]["jwks_uri"] = "http://id.example.com/keys"
        self.issuer.pages["http://id.example.com/keys"] = self.issuer.pages[f"{ISSUER}/keys"]
        self.grant(self.validator(allow_http=True), token())

    def test_no_request_fetches(self) -> None:
        validator = self.validator()
        for _ in range(5):
            self.grant(validator, token())
        self.assertEqual(len(self.issuer.asked), 2)

    def test_an_unknown_key_fetches_now_and_then(self) -> None:
        """At most once in jwks_cooldown, however many come."""
        validator = self.validator(jwks_cooldown="20s")
        fresh = RSAKey.generate_key(2048, {"kid": "fresh"})
        self.issuer.publish(fresh)
        self.refused(validator, token(fresh), TokenInvalid)  # it has just fetched
        self.clock.advance(20)
        self.grant(validator, token(fresh))
        asked = len(self.issuer.asked)
        for n in range(50):
            self.refused(validator, token(fresh, header={"kid": f"forged-{n}"}), TokenInvalid)
        self.assertEqual(len(self.issuer.asked), asked)

    def test_a_key_that_was_withdrawn(self) -> None:
        """Within jwks_refresh it counts no more, and whoever has cached something hears of it."""
        validator = self.validator(jwks_refresh="1m")
        heard: list[str] = []
        validator.watch(heard.append)
        self.grant(validator, token())
        self.issuer.publish(EC)
        self.clock.pump([5.0] * 14)
        self.assertEqual(heard, [""])
        self.refused(validator, token(), TokenInvalid)
        self.issuer.publish(EC, RSA)
        self.clock.pump([5.0] * 14)
        self.assertEqual(heard, [""])  # a key more is no reason to forget anything

    def test_while_it_is_away(self) -> None:
        """Keys are used on for jwks_max_stale, and the ready page says what is wrong."""
        validator = self.validator(jwks_refresh="1m", jwks_max_stale="10m")
        [check] = validator.health_checks()
        self.assertEqual(check.read(), "ok")
        self.issuer.away = True
        self.clock.pump([10.0] * 60)
        self.assertIn("cannot be reached", check.read())
        self.grant(validator, token())
        self.clock.pump([10.0] * 8)
        self.refused(validator, token(exp=NOW + 9000), IdentityProviderUnavailable)
        self.issuer.away = False
        self.clock.pump([10.0] * 2)
        self.grant(validator, token(exp=NOW + 9000))
        self.assertEqual(check.read(), "ok")

    def test_it_does_not_answer(self) -> None:
        """Those who wait for keys are told so after timeout, all of them, with one request sent."""
        self.issuer.silent = True
        validator = self.validator(timeout="2s")
        waiting = [validator.validate_token(token()) for _ in range(10)]
        self.clock.advance(1.9)
        self.assertNoResult(waiting[0])
        self.clock.advance(0.2)
        for each in waiting:
            self.failureResultOf(each, IdentityProviderUnavailable)
        self.assertEqual(len(self.issuer.asked), 1)

    def test_one_who_waits_leaves(self) -> None:
        self.issuer.silent = True
        validator = self.validator()
        first, second = validator.validate_token(token()), validator.validate_token(token())
        first.cancel()
        self.failureResultOf(first)
        self.assertNoResult(second)
        validator.stopService()
        self.failureResultOf(second, IdentityProviderUnavailable)
        validator.startService()


class GrantTests(ValidatorCase):
    def test_profiles(self) -> None:
        """The one that the claim names, or else the default."""
        profile = {
            "apis": ["a"],
            "endpoints": ["/v1/x"],
            "models": ["gpt-*"],
            "ips": ["10.0.0.0/8"],
            "requests_per_minute": 1,
            "tokens_per_minute": 2,
            "concurrency": 3,
            "budget_usd": "4/month",
            "budget_tokens": "5/day",
        }
        validator = self.validator(profiles={"full": profile, "none": {}}, default_profile="none")
        grant, other = self.grant(validator, token(llmproxy_profile="full")), self.grant(validator, token())
        self.assertEqual((grant.apis, grant.endpoints, grant.models), (("a",), ("/v1/x",), ("gpt-*",)))
        self.assertEqual(grant.ips, ("10.0.0.0/8",))
        assert grant.allowance is not None
        allowed = grant.allowance
        self.assertEqual((allowed.requests_per_minute, allowed.tokens_per_minute, allowed.concurrency), (1, 2, 3))
        self.assertEqual([b.period for b in (*allowed.budget_usd, *allowed.budget_tokens)], ["month", "day"])
        self.assertEqual((other.apis, other.models, other.allowance), ((), (), None))
        with self.assertRaisesRegex(ValueError, "there is no profile"):
            self.validator(default_profile="missing")

    def test_models_and_apis_are_only_taken_away(self) -> None:
        names = {"models": "may.use", "apis": "may.call"}
        validator = self.validator(
            claims=names, apis=["a", "b"], profiles={"p": {"models": ["gpt-4*", "o?"], "apis": ["b", "c"]}},
            default_profile="p",
        )  # fmt: skip
        for claimed, models in (
            (["gpt-4o", "o3", "claude"], ("gpt-4o", "o3")),
            ("gpt-4o o3", ("gpt-4o", "o3")),
            (["gpt-4*", "*", "o[34]"], ("gpt-4*",)),
        ):
            self.assertEqual(self.grant(validator, token(may={"use": claimed})).models, models)
        self.assertEqual(self.grant(validator, token(**{"may.call": ["b", "a"]})).apis, ("b",))
        self.assertEqual(self.grant(validator, token()).apis, ("b",))

    def test_projects(self) -> None:
        validator = self.validator(claims={"project": "team"}, projects={"x": "1", "y": "2"}, default_project="")
        self.assertEqual(self.grant(validator, token(team="y")).project_id, "2")
        self.assertEqual(self.grant(validator, token(team=["z", "x"])).project_id, "1")
        for team in (None, "1", "", [], [5], {"x": 1}):
            self.refused(validator, token(team=team), ClaimsNotAllowed)
        self.assertEqual(self.grant(self.validator(claims={"project": "team"}), token(team="id")).project_id, "id")

    def test_require(self) -> None:
        validator = self.validator(require={"groups": ["a", "b c"], "realm.roles": ["r"]})
        self.grant(validator, token(groups=["x", "a"], realm={"roles": ["r"]}))
        self.grant(validator, token(groups="b c", realm={"roles": "q r"}))
        self.refused(validator, token(groups=["x", "a"]), ClaimsNotAllowed)
        self.refused(validator, token(groups=["x"], realm={"roles": ["r"]}), ClaimsNotAllowed)

    def test_subjects(self) -> None:
        """Two subjects, or two issuers, never share a name, and none is longer than the ledger can take."""
        validator = self.validator()
        subjects = ["ada", "Ada", "a" * 44, "a" * 45, "ä", "a b", "auth0|5", "x" * 255]
        first = self.grant(validator, token(sub="ä")).token_id
        subjects.append(first.rpartition(":")[2])  # what stands there for another one
        names = [self.grant(validator, token(sub=subject)).token_id for subject in subjects]
        self.assertEqual(len(set(names)), len(subjects))
        self.assertLessEqual(max(map(len, names)), 64)
        for wrong in ("", "x" * 256, ["ada"]):
            self.refused(validator, token(sub=wrong), TokenInvalid)
