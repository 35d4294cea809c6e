"""Keys: what is read, what is refused and why, and what no certificate may carry."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import math
import time
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import padding, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from certwright.kernel.problems import Invalid, Problem, TooLarge
from certwright.x509 import _der, keys
from certwright.x509.keys import KeyAlgorithm
from tests.x509.factory import hierarchy, key, openssl

PASSPHRASE = b"open sesame"


def traditional(private: keys.PrivateKey) -> bytes:
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


RSA_PEM = traditional(key(KeyAlgorithm.RSA_2048))
EC_PEM = traditional(key())
EC_PARAMETERS = openssl("ecparam", "-name", "prime256v1")


@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
def test_a_key_of_every_algorithm_survives_storing_and_is_admitted(algorithm: KeyAlgorithm) -> None:
    made = key(algorithm)
    again = keys.from_pkcs8_der(keys.to_pkcs8_der(made))
    assert keys.spki_sha256(again) == keys.spki_sha256(made.public_key())
    assert keys.describe_public_key(made.public_key()) in ("EC P-256", "EC P-384", "RSA 2048", "RSA 3072", "RSA 4096")
    keys.judge_public_key(made.public_key(), public=True)


def test_a_stored_key_of_another_kind_is_not_taken_for_ours() -> None:
    other = ed448.Ed448PrivateKey.generate().private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(TypeError):
        keys.from_pkcs8_der(other)


def test_an_exported_key_with_a_passphrase_is_aes_256_and_openssl_opens_it() -> None:
    pem = keys.to_pkcs8_pem(key(), PASSPHRASE)
    # The OID of aes256-CBC (2.16.840.1.101.3.4.1.42) stands in the clear part.
    assert bytes.fromhex("060960864801650304012a") in serialization_body(pem)
    opened = openssl("pkey", "-passin", f"pass:{PASSPHRASE.decode()}", stdin=pem)
    assert keys.spki_sha256(keys.read_private_key(opened)) == keys.spki_sha256(key())


def serialization_body(pem: bytes) -> bytes:
    return base64.b64decode(b"".join(pem.splitlines()[1:-1]))


def test_key_request_and_certificate_of_one_key_have_one_fingerprint() -> None:
    h = hierarchy()
    assert keys.spki_sha256(x509.load_der_x509_certificate(h.leaf)) == keys.spki_sha256(h.leaf_key.public_key())


# --- uploads -----------------------------------------------------------------------------------------------------

PKCS8 = keys.to_pkcs8_pem(key())
PLAIN_FORMS = {
    "pkcs8": PKCS8,
    "pkcs8 rsa": keys.to_pkcs8_pem(key(KeyAlgorithm.RSA_2048)),
    "pkcs1": RSA_PEM,
    "sec1": EC_PEM,
    "sec1 after ec parameters": EC_PARAMETERS + EC_PEM,
    "pkcs8 der": keys.to_pkcs8_der(key()),
    "windows line ends": PKCS8.replace(b"\n", b"\r\n"),
    "byte order mark": b"\xef\xbb\xbf" + PKCS8,
    "utf-16": PKCS8.decode().encode("utf-16"),
    "literal backslash-n": PKCS8.replace(b"\n", b"\\n"),
    "blank lines and spaces": PKCS8.replace(b"\n", b" \n\n"),
    "text around": b"Here is the key:\n" + PKCS8 + b"regards\n",
    "with its certificate": keys.to_pkcs8_pem(key())
    + b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    "the same key twice": PKCS8 + PKCS8,
    "wrong label": EC_PEM.replace(b"EC PRIVATE", b"PRIVATE"),
}


@pytest.mark.parametrize("form", PLAIN_FORMS.values(), ids=PLAIN_FORMS.keys())
def test_every_plain_form_of_a_key_is_read(form: bytes) -> None:
    read = keys.read_private_key(form)
    expected = key(KeyAlgorithm.RSA_2048) if isinstance(read, rsa.RSAPrivateKey) else key()
    assert keys.spki_sha256(read) == keys.spki_sha256(expected)


def test_a_needless_passphrase_does_no_harm() -> None:
    assert keys.spki_sha256(keys.read_private_key(PKCS8, b"whatever")) == keys.spki_sha256(key())


@pytest.mark.parametrize("private", [ec.generate_private_key(ec.SECP521R1()), ed25519.Ed25519PrivateKey.generate()])
def test_kinds_we_do_not_make_are_read_too(private: keys.PrivateKey) -> None:
    assert keys.spki_sha256(keys.read_private_key(keys.to_pkcs8_pem(private))) == keys.spki_sha256(private)


ENCRYPTED_FORMS = {
    "pkcs8 pbes2": ("pkcs8", "-topk8", "-v2", "aes-256-cbc"),
    "pkcs8 scrypt": ("pkcs8", "-topk8", "-scrypt"),
    "pkcs8 pbe-sha1-3des": ("pkcs8", "-topk8", "-v1", "PBE-SHA1-3DES"),
    "sec1 proc-type 3des": ("ec", "-des3"),
    "pkcs8 pbe-md5-des": ("pkcs8", "-topk8", "-v1", "PBE-MD5-DES", "-provider", "legacy", "-provider", "default"),
    "pkcs8 pbe-sha1-rc2": ("pkcs8", "-topk8", "-v1", "PBE-SHA1-RC2-40", "-provider", "legacy", "-provider", "default"),
    "pkcs8 pbes2 3des": ("pkcs8", "-topk8", "-v2", "des3"),
    "pkcs8 pbes2 sha1": ("pkcs8", "-topk8", "-v2", "aes-192-cbc", "-v2prf", "hmacWithSHA1"),
    "sec1 proc-type aes": ("ec", "-aes256"),
    "sec1 proc-type aes 192": ("ec", "-aes192"),
    "pkcs8 der": ("pkcs8", "-topk8", "-outform", "DER"),
}


@pytest.fixture(params=ENCRYPTED_FORMS.values(), ids=ENCRYPTED_FORMS.keys())
def encrypted(request: pytest.FixtureRequest) -> bytes:
    return openssl(*request.param, "-passout", f"pass:{PASSPHRASE.decode()}", stdin=EC_PEM)


def test_an_encrypted_key_opens_with_its_passphrase(encrypted: bytes) -> None:
    assert keys.spki_sha256(keys.read_private_key(encrypted, PASSPHRASE)) == keys.spki_sha256(key())


@pytest.mark.parametrize("passphrase", [None, b""], ids=["none", "empty"])
def test_an_encrypted_key_asks_for_its_passphrase(encrypted: bytes, passphrase: bytes | None) -> None:
    with pytest.raises(Invalid) as refusal:
        keys.read_private_key(encrypted, passphrase)
    assert (refusal.value.code, refusal.value.field) == ("key_encrypted", "private_key")


def test_a_wrong_passphrase_is_said_to_be_wrong(encrypted: bytes) -> None:
    with pytest.raises(Invalid) as refusal:
        keys.read_private_key(encrypted, b"not this one")
    assert (refusal.value.code, refusal.value.field) == ("wrong_passphrase", "passphrase")


def pem(label: str, body: bytes) -> bytes:
    return f"-----BEGIN {label}-----\n".encode() + base64.encodebytes(body) + f"-----END {label}-----\n".encode()


def certificate_pem() -> bytes:
    return pem("CERTIFICATE", hierarchy().leaf)


def openssh() -> bytes:
    return ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )


def diffie_hellman() -> bytes:
    parameters = openssl("genpkey", "-genparam", "-algorithm", "DH", "-pkeyopt", "group:ffdhe2048")
    return openssl("genpkey", "-paramfile", "/dev/stdin", stdin=parameters)


REFUSED = {
    "nothing": (b"", "key_missing"),
    "blanks": (b" \r\n ", "key_missing"),
    "prose": (b"I lost my key", "key_missing"),
    "a certificate": (certificate_pem(), "wrong_block"),
    "a request": (pem("CERTIFICATE REQUEST", b"x"), "wrong_block"),
    "a public key": (pem("PUBLIC KEY", b"x"), "wrong_block"),
    "only curve parameters": (EC_PARAMETERS, "ec_parameters_only"),
    "openssh": (openssh(), "key_format"),
    "dsa label": (pem("DSA PRIVATE KEY", b"x"), "key_format"),
    "diffie-hellman": (diffie_hellman(), "key_format"),
    "x25519": (openssl("genpkey", "-algorithm", "x25519"), "key_format"),
    "two keys": (EC_PEM + RSA_PEM, "key_format"),
    "noise inside": (pem("PRIVATE KEY", b"\x30\x03\x02\x01\x00"), "key_format"),
    "empty inside": (pem("PRIVATE KEY", b""), "key_format"),
    "a certificate as der": (hierarchy().leaf, "key_format"),
    "a giant block": (pem("PRIVATE KEY", b"\x30" * 100_000), "key_format"),
    "no end line": (EC_PEM[:-10], "not_pem"),
    "lost character": (EC_PEM[:60] + EC_PEM[61:], "bad_base64"),
    "strange character": (EC_PEM[:60] + b"!" + EC_PEM[61:], "bad_base64"),
    "ed448": (
        ed448.Ed448PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        "key_format",
    ),
}


@pytest.mark.parametrize(("text", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_a_key_is_refused_with_its_own_code(text: bytes, code: str) -> None:
    with pytest.raises(Invalid) as refusal:
        keys.read_private_key(text, b"x")
    assert refusal.value.code == code
    assert refusal.value.field == "private_key"
    assert refusal.value.message.endswith(".")
    assert refusal.value.fix


def test_a_lost_character_is_told_with_its_line() -> None:
    lines = EC_PEM.split(b"\n")
    lines[2] = lines[2][:10] + b"#" + lines[2][11:]
    with pytest.raises(Invalid) as refusal:
        keys.read_private_key(b"\n".join(lines))
    assert refusal.value.extra == {"line": 3}


def test_more_than_a_mebibyte_is_not_looked_at() -> None:
    with pytest.raises(TooLarge) as refusal:
        keys.read_private_key(b"a" * (1024 * 1024 + 1))
    assert refusal.value.code == "too_large"


def test_no_refusal_repeats_key_material() -> None:
    body = EC_PEM.splitlines()[1].decode()
    for broken in (EC_PEM[:-10], EC_PEM[:90] + b"!" + EC_PEM[91:], EC_PEM.replace(b"EC PRIVATE", b"DSA PRIVATE")):
        with pytest.raises(Invalid) as refusal:
            keys.read_private_key(broken)
        said = repr(refusal.value.as_dict()) + repr(refusal.value.__cause__)
        assert all(body[i : i + 12] not in said for i in range(len(body) - 12))


# --- work factors ------------------------------------------------------------------------------------------------


def oid(hexadecimal: str) -> bytes:
    return _der.tlv(_der.OBJECT_IDENTIFIER, bytes.fromhex(hexadecimal))


def integer(value: int) -> bytes:
    return _der.tlv(_der.INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def encrypted_with(kdf: bytes) -> bytes:
    cipher = _der.sequence(oid("60864801650304012a"), _der.tlv(_der.OCTET_STRING, bytes(16)))
    scheme = _der.sequence(oid("2a864886f70d01050d"), _der.sequence(kdf, cipher))
    return pem("ENCRYPTED PRIVATE KEY", _der.sequence(scheme, _der.tlv(_der.OCTET_STRING, bytes(64))))


SALT = _der.tlv(_der.OCTET_STRING, b"saltsalt")


@pytest.mark.parametrize(
    "kdf",
    [
        _der.sequence(oid("2a864886f70d01050c"), _der.sequence(SALT, integer(2**31 - 1))),
        _der.sequence(oid("2b06010401da47040b"), _der.sequence(SALT, integer(2**24), integer(8), integer(1))),
        _der.sequence(oid("2b06010401da47040b"), _der.sequence(SALT, integer(2**14), integer(8), integer(2**20))),
    ],
    ids=["two billion PBKDF2 rounds", "16 GiB of scrypt", "a million scrypt lanes"],
)
def test_key_derivation_that_would_stall_the_product_is_refused_before_it_begins(kdf: bytes) -> None:
    with pytest.raises(Invalid, match="more work") as refusal:
        keys.read_private_key(encrypted_with(kdf), b"x")
    assert refusal.value.code == "key_format"


def pkcs8(algorithm: str, parameters: bytes, private: bytes) -> bytes:
    kind = _der.sequence(_der.object_identifier(algorithm), parameters)
    return _der.sequence(integer(0), kind, _der.tlv(_der.OCTET_STRING, private))


# 40,000 bits: reading the first took the library two minutes, with Python's lock held.
HUGE = (1 << 40_000) - 3
SLOW_KEYS = {
    "DSA": pkcs8("1.2.840.10040.4.1", _der.sequence(*map(integer, (HUGE, HUGE, HUGE - 2))), integer(HUGE - 4)),
    "Diffie-Hellman": pkcs8("1.2.840.113549.1.3.1", _der.sequence(*map(integer, (HUGE, 2))), integer(HUGE - 4)),
    "X9.42": pkcs8("1.2.840.10046.2.1", _der.sequence(*map(integer, (HUGE, 2, HUGE - 2))), integer(HUGE - 4)),
}


def under_passphrase(plain: bytes) -> bytes:
    """PBES2 with one round and AES-128."""
    secret = hashlib.pbkdf2_hmac("sha1", PASSPHRASE, b"saltsalt", 1, 16)
    padder = padding.PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(secret), modes.CBC(bytes(16))).encryptor()
    hidden = encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()
    kdf = _der.sequence(oid("2a864886f70d01050c"), _der.sequence(SALT, integer(1)))
    cipher = _der.sequence(oid("608648016503040102"), _der.tlv(_der.OCTET_STRING, bytes(16)))
    scheme = _der.sequence(oid("2a864886f70d01050d"), _der.sequence(kdf, cipher))
    return _der.sequence(scheme, _der.tlv(_der.OCTET_STRING, hidden))


@pytest.mark.parametrize("slow", SLOW_KEYS.values(), ids=SLOW_KEYS.keys())
@pytest.mark.parametrize("hide", [lambda plain: plain, under_passphrase], ids=["in the clear", "encrypted"])
def test_a_key_that_would_stall_the_library_is_refused_before_it_sees_it(
    slow: bytes, hide: Callable[[bytes], bytes]
) -> None:
    began = time.process_time()
    with pytest.raises(Invalid, match="of this kind") as refusal:
        keys.read_private_key(hide(slow), PASSPHRASE)
    assert refusal.value.code == "key_format"
    assert time.process_time() - began < 1


def test_what_is_hidden_under_the_passphrase_is_read_like_any_other_key() -> None:
    read = keys.read_private_key(under_passphrase(keys.to_pkcs8_der(key())), PASSPHRASE)
    assert keys.spki_sha256(read) == keys.spki_sha256(key())
    with pytest.raises(Invalid, match="neither PKCS#8"):
        keys.read_private_key(under_passphrase(pkcs8("1.2.840.10045.2.1", b"", b"noise")), PASSPHRASE)


# --- RSA numbers -------------------------------------------------------------------------------------------------


def rsa_der(*numbers: int) -> bytes:
    return _der.sequence(integer(0), *(integer(n) for n in numbers))


def rsa_numbers() -> list[int]:
    private = key(KeyAlgorithm.RSA_2048)
    assert isinstance(private, rsa.RSAPrivateKey)
    n = private.private_numbers()
    return [n.public_numbers.n, n.public_numbers.e, n.d, n.p, n.q, n.dmp1, n.dmq1, n.iqmp]


def test_the_unchanged_numbers_are_admitted() -> None:
    assert keys.spki_sha256(keys.read_private_key(rsa_der(*rsa_numbers()))) == keys.spki_sha256(
        key(KeyAlgorithm.RSA_2048)
    )


@pytest.mark.parametrize("which", range(8), ids=["n", "e", "d", "p", "q", "dmp1", "dmq1", "iqmp"])
@pytest.mark.parametrize("change", [lambda n: n + 2, lambda n: n + 1, lambda n: 0, lambda n: 1])
def test_an_rsa_key_with_one_wrong_number_is_refused(which: int, change: object) -> None:
    numbers = rsa_numbers()
    numbers[which] = change(numbers[which])  # type: ignore[operator]
    with pytest.raises(Invalid) as refusal:
        keys.read_private_key(rsa_der(*numbers))
    assert refusal.value.code == "key_format"


def test_consistent_numbers_of_composite_primes_do_not_pass_the_trial_signature() -> None:
    # p = 3 * prime: every relation but primality can be made to hold, and signing then fails for almost every input.
    p = 3 * (2**1021 + 2**60 + 1)
    q = rsa_numbers()[4]
    while math.gcd(65537, (p - 1) * (q - 1)) != 1:
        p += 6
    d = pow(65537, -1, math.lcm(p - 1, q - 1))
    broken = rsa_der(p * q, 65537, d, p, q, d % (p - 1), d % (q - 1), pow(q, -1, p))
    with pytest.raises(Invalid) as refusal:
        keys.read_private_key(broken)
    assert refusal.value.code == "key_format"


def test_an_rsa_key_too_large_to_sign_with_in_time_is_refused() -> None:
    p, q = 2**5000 + 1, 2**5000 + 3
    with pytest.raises(Invalid) as refusal:
        keys.read_private_key(rsa_der(p * q, 65537, 3, p, q, 1, 1, 1))
    assert refusal.value.code == "key_too_large"


# --- judging -----------------------------------------------------------------------------------------------------


def coprime_to_small_primes(start: int, step: int) -> int:
    small = math.prod(n for n in range(2, 752) if all(n % p for p in range(2, n)))
    while math.gcd(start, small) != 1:
        start += step
    return start


def with_modulus(n: int, e: int = 65537) -> rsa.RSAPublicKey:
    return rsa.RSAPublicNumbers(e, n).public_key()


def honest_modulus() -> int:
    return rsa_numbers()[0]


def close_primes() -> int:
    p = coprime_to_small_primes(2**1023 + 2**1022 + 2**700 + 1, 2)
    return p * coprime_to_small_primes(p + 2, 2)


def roca_modulus() -> int:
    product = math.prod(n for n in range(2, 168) if all(n % p for p in range(2, n)))
    start = (2**2047 // product + 1) * product + pow(65537, 123456789, product)
    return coprime_to_small_primes(start, product)


WEAK = {
    "1024 bits": (with_modulus(coprime_to_small_primes(2**1023 + 1, 2)), "weak_key", "1024"),
    "2047 bits": (with_modulus(coprime_to_small_primes(2**2046 + 1, 2)), "weak_key", "2047"),
    "2049 bits": (with_modulus(coprime_to_small_primes(2**2048 + 1, 2)), "weak_key", "multiple of 8"),
    "exponent 3": (with_modulus(honest_modulus(), 3), "weak_key", "exponent"),
    "exponent 65535": (with_modulus(honest_modulus(), 65535), "weak_key", "exponent"),
    "factor 751": (with_modulus(751 * ((2**2047 + 2**2046) // 751 | 1)), "weak_key", "factor"),
    "close primes": (with_modulus(close_primes()), "weak_key", "close"),
    "a square": (with_modulus(coprime_to_small_primes(2**1023 + 2**1022 + 1, 2) ** 2), "weak_key", "close"),
    "roca": (with_modulus(roca_modulus()), "weak_key", "ROCA"),
    "10,000 bits": (with_modulus(2**9999 + 1), "key_too_large", "8192"),
    "secp256k1": (ec.generate_private_key(ec.SECP256K1()).public_key(), "unsupported_curve", "secp256k1"),
    "p-224": (ec.generate_private_key(ec.SECP224R1()).public_key(), "unsupported_curve", "secp224r1"),
    "dsa": (dsa.generate_private_key(2048).public_key(), "unsupported_key", "DSA"),
    "ed448": (ed448.Ed448PrivateKey.generate().public_key(), "unsupported_key", "Ed448"),
}


@pytest.mark.parametrize("public", [True, False], ids=["public CA", "private CA"])
@pytest.mark.parametrize(("weak", "code", "word"), WEAK.values(), ids=WEAK.keys())
def test_a_weak_or_odd_key_is_refused_everywhere(weak: object, code: str, word: str, public: bool) -> None:
    with pytest.raises(Invalid, match=word) as refusal:
        keys.judge_public_key(weak, public=public)
    assert refusal.value.code == code
    assert refusal.value.fix


def test_ed25519_is_for_private_cas_only() -> None:
    public_key = ed25519.Ed25519PrivateKey.generate().public_key()
    keys.judge_public_key(public_key, public=False)
    with pytest.raises(Invalid) as refusal:
        keys.judge_public_key(public_key, public=True)
    assert refusal.value.code == "unsupported_curve"


def test_p_521_is_admitted_and_named() -> None:
    public_key = ec.generate_private_key(ec.SECP521R1()).public_key()
    keys.judge_public_key(public_key, public=True)
    assert keys.describe_public_key(public_key) == "EC P-521"


# --- any bytes at all --------------------------------------------------------------------------------------------


@given(st.binary(max_size=400), st.one_of(st.none(), st.binary(max_size=8)))
def test_any_bytes_end_in_a_key_or_a_problem(data: bytes, passphrase: bytes | None) -> None:
    for text in (data, pem("PRIVATE KEY", data), pem("ENCRYPTED PRIVATE KEY", data), b"-----BEGIN " + data):
        with contextlib.suppress(Problem):
            keys.read_private_key(text, passphrase)


@settings(max_examples=300)
@given(
    st.sampled_from(["pkcs8", "sec1", "pkcs1", "encrypted"]),
    st.integers(min_value=0),
    st.binary(min_size=1, max_size=4),
)
def test_a_damaged_key_ends_in_a_key_or_a_problem(form: str, place: int, change: bytes) -> None:
    body = bytearray(DAMAGED[form])
    at = place % len(body)
    body[at : at + len(change)] = change
    for text in (bytes(body), pem("PRIVATE KEY", bytes(body)), pem("ENCRYPTED PRIVATE KEY", bytes(body))):
        with contextlib.suppress(Problem):
            keys.read_private_key(text, b"x")


DAMAGED = {
    "pkcs8": keys.to_pkcs8_der(key()),
    "sec1": serialization_body(EC_PEM),
    "pkcs1": serialization_body(RSA_PEM),
    "encrypted": serialization_body(
        openssl("pkcs8", "-topk8", "-scrypt", "-scrypt_N", "16", "-passout", "pass:x", stdin=EC_PEM)
    ),
}


@pytest.mark.parametrize(
    "line",
    [
        "AES-256-CBC,F3593E898EAC585FB87D",
        "AES-256-CBC",
        "AES-256-CBC,",
        "DES-EDE3-CBC,00",
        "RC5-CBC,0011223344556677",
        f"AES-256-CBC,{'00' * 16}\nDEK-Info: AES-256-CBC,00",
        f"AES-256-CBC,00\nDEK-Info: AES-256-CBC,{'00' * 16}",
        f"AES-256-CBC,{'00' * 16}\nDek-info: AES-256-CBC,00",
    ],
)
def test_an_encryption_header_that_does_not_fit_its_cipher_is_refused_with_a_sentence(line: str) -> None:
    text = f"-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: {line}\n\n{'A' * 64}\n"
    with pytest.raises(Invalid) as refusal:
        keys.read_private_key(f"{text}-----END EC PRIVATE KEY-----\n".encode(), b"secret")
    assert refusal.value.code == "key_format"
