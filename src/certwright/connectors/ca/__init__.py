"""Certificate authorities behind `rooms.certificates.CertificateAuthority`."""
