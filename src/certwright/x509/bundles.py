"""Download archives: the right files for one kind of server, and a note that names these very files."""

from __future__ import annotations

import io
import re
import stat
import zipfile
from datetime import UTC, datetime

# Names Windows can't have, with or without an extension.
_RESERVED = frozenset({"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10))})
_FIRST_ZIP_YEAR = 1980
_LAST_ZIP_YEAR = 2107


def safe_file_name(name: str) -> str:
    """A file name without path, wildcard or surprise from any text, at most 100 characters: `*.a.de` -> `_.a.de`."""
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "_", name.replace("*", "_")).lstrip(".-")[:100].rstrip(". ")
    if not cleaned or cleaned.partition(".")[0].lower() in _RESERVED:
        cleaned = ("certificate_" + cleaned).rstrip("_")
    return cleaned


def nginx_zip(*, name: str, fullchain_pem: str | bytes, key_pem: str | bytes | None, at: datetime) -> bytes:
    """A zip for nginx: `<name>.crt` (leaf and intermediates), `<name>.key` if there is a key, README.txt.

    The same arguments give the same octets; `at` dates the files. The key file asks to be unpacked with mode 0600.
    """
    base = safe_file_name(name)
    files: list[tuple[str, bytes, int]] = [(f"{base}.crt", _octets(fullchain_pem), 0o644)]
    if key_pem is not None:
        files.append((f"{base}.key", _octets(key_pem), 0o600))
    files.append(("README.txt", _nginx_note(base, has_key=key_pem is not None).encode(), 0o644))
    return _zip(files, at)


def _octets(text: str | bytes) -> bytes:
    return text.encode("ascii") if isinstance(text, str) else text


def _zip(files: list[tuple[str, bytes, int]], at: datetime) -> bytes:
    moment = at.astimezone(UTC)
    year = min(max(moment.year, _FIRST_ZIP_YEAR), _LAST_ZIP_YEAR)
    dated = (year, moment.month, moment.day, moment.hour, moment.minute, moment.second)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file_name, content, mode in files:
            entry = zipfile.ZipInfo(file_name, dated)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, wherever this runs: the mode below is read as such
            entry.external_attr = (stat.S_IFREG | mode) << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


def _nginx_note(base: str, *, has_key: bool) -> str:
    key_lines = (
        f"  {base}.key  the private key: keep it secret\n"
        if has_key
        else f"  (no key: it stayed with whoever made the request; name its file {base}.key)\n"
    )
    return f"""Install this certificate in nginx
=================================

Files
  {base}.crt  the certificate and its intermediates, in the order nginx wants
{key_lines}
1. Copy the files to the server and protect the key:

     sudo install -D -m 0644 {base}.crt /etc/nginx/certs/{base}.crt
     sudo install -D -m 0600 {base}.key /etc/nginx/certs/{base}.key

2. In the server block of the site:

     listen 443 ssl;
     ssl_certificate     /etc/nginx/certs/{base}.crt;
     ssl_certificate_key /etc/nginx/certs/{base}.key;

3. Test the configuration, and only if it is good, load it:

     sudo nginx -t && sudo nginx -s reload

4. Look at what the server now shows:

     openssl s_client -connect localhost:443 -servername <your site> </dev/null | openssl x509 -noout -dates -subject
"""
