"""An issuer of tokens, and what one must not be able to do who is none."""

import base64
import hashlib
import hmac
import json
import time
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ISSUER = "https://issuer.test"
AUDIENCE = "playhead"
SECRET = "a secret that both of them know, of 32 bytes or more"
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()
FOREIGN_KEY = ec.generate_private_key(ec.SECP256R1())


def claims(**other: Any) -> dict[str, Any]:
    """Those of a good token, but for these; what is None is left out."""
    now = int(time.time())
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "iat": now, "exp": now + 60}
    return {name: value for name, value in (good | other).items() if value is not None}


def jwk(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, key_id: str | None) -> dict[str, Any]:
    """The public half, as an issuer publishes it."""
    algorithm = jwt.get_algorithm_by_name("ES256" if isinstance(key, ec.EllipticCurvePrivateKey) else "EdDSA")
    plain = algorithm.to_jwk(key.public_key(), as_dict=True)
    return plain | ({} if key_id is None else {"kid": key_id})


def document(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


PUBLISHED = document(jwk(EC_KEY, "ec"), jwk(ED_KEY, "ed"))


def by_hand(header: dict[str, Any], payload: dict[str, Any], secret: bytes = b"", hashed: Any = hashlib.sha256) -> str:
    """A token that no library would sign; without a secret it has no signature."""
    signed = ".".join(_encoded(json.dumps(part).encode()) for part in (header, payload))
    return f"{signed}.{_encoded(hmac.new(secret, signed.encode(), hashed).digest()) if secret else ''}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def confused_secrets() -> list[bytes]:
    """What everybody may know of the key `ec`, as bytes that one could sign with."""
    public = EC_KEY.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return [pem, pem.strip(), der, json.dumps(jwk(EC_KEY, "ec")).encode()]


@dataclass(frozen=True)
class Signer:
    """An issuer that signs with a secret, or with keys that it publishes."""

    shares_secret: bool

    def sign(self, payload: dict[str, Any]) -> str:
        if self.shares_secret:
            return jwt.encode(payload, SECRET, "HS256")
        return jwt.encode(payload, EC_KEY, "ES256", headers={"kid": "ec"})

    def refused(self) -> dict[str, str]:
        """Tokens that are not to be taken, by what is the matter with them."""
        now = int(time.time())
        wrong = {
            "expired": claims(exp=now - 31, iat=now - 100),
            "of the future": claims(iat=now + 3600, exp=now + 7200),
            "not yet": claims(nbf=now + 3600),
            "wrong audience": claims(aud="somebody else"),
            "the audience of stream tokens": claims(aud="playhead-stream"),
            "wrong issuer": claims(iss=f"{ISSUER}.evil.test"),
            "no expiry": claims(exp=None),
            "no time": claims(iat=None),
            "no audience": claims(aud=None),
            "no issuer": claims(iss=None),
            "no subject": claims(sub=None),
            "empty subject": claims(sub=""),
            "subject of 256": claims(sub="x" * 256),
            "subject with a control character": claims(sub="ann\n"),
            "subject with a NUL": claims(sub="ann\x00"),
            "half a pair": claims(sub="\ud800"),
            "subject that is a number": claims(sub=7),
            "subject that is a list": claims(sub=["ann"]),
            "expiry that is a text": claims(exp="soon"),
            "expiry that is null": claims() | {"exp": None},
            "subject that is null": claims() | {"sub": None},
            "endless": claims(exp=float("inf")),
        }
        tokens = {what: self.sign(payload) for what, payload in wrong.items()}
        good = self.sign(claims())
        head, body, _ = good.split(".")
        other = self.sign(claims(sub="eve"))
        return tokens | {
            "no signature": f"{head}.{body}.",
            "the signature of another": f"{head}.{body}.{other.rpartition('.')[2]}",
            "another's words": f"{head}.{other.split('.')[1]}.{good.rpartition('.')[2]}",
            "algorithm none": by_hand({"alg": "none", "typ": "JWT"}, claims()),
            "algorithm none, by key": by_hand({"alg": "none", "kid": "ec"}, claims()),
            "algorithm None, signed": by_hand({"alg": "None", "kid": "ec"}, claims(), b"x" * 32),
            "no algorithm": by_hand({"kid": "ec"}, claims(), SECRET.encode()),
            "another's secret": by_hand({"alg": "HS256", "kid": "ec"}, claims(), b"x" * 32),
            "another's HS512": by_hand({"alg": "HS512", "kid": "ec"}, claims(), SECRET.encode(), hashlib.sha512),
            "another's key": jwt.encode(claims(), FOREIGN_KEY, "ES256", headers={"kid": "ec"}),
            "a key that it brings along": jwt.encode(
                claims(), FOREIGN_KEY, "ES256", headers={"jwk": jwk(FOREIGN_KEY, "ec"), "kid": "ec"}
            ),
            "a key of which nobody knows": jwt.encode(claims(), FOREIGN_KEY, "ES256", headers={"kid": "x"}),
            "no key named": jwt.encode(claims(), FOREIGN_KEY, "ES256"),
            "a key with another's algorithm": jwt.encode(claims(), ED_KEY, "EdDSA", headers={"kid": "ec"}),
            "an unknown critical header": by_hand(
                {"alg": "HS256", "kid": "ec", "crit": ["x"], "x": 1}, claims(), SECRET.encode()
            ),
            **{
                f"the public key as a secret {n}": by_hand({"alg": "HS256", "kid": "ec"}, claims(), secret)
                for n, secret in enumerate(confused_secrets())
            },
            "deep": f"{_encoded(b'[' * 5000)}.e30.AAAA",
            "deep in an object": _encoded(b'{"a":' * 1000) + ".e30.AAAA",
            "a number for a key": by_hand({"alg": "ES256", "kid": 7}, claims(), b"x"),
            "a list for a key": by_hand({"alg": "ES256", "kid": ["ec"]}, claims(), b"x"),
            "an object for an algorithm": by_hand({"alg": {}, "kid": "ec"}, claims(), b"x"),
            "a list for a header": f"{_encoded(b'[]')}.e30.AAAA",
            "four parts": f"{good}.AAAA",
            "two parts": f"{head}.{body}",
            "too long": self.sign(claims(more="x" * 6200)),
            "another alphabet": good.replace(".", ".+", 1),
            "padded": f"{good}=",
        }
