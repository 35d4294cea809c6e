"""Messages by e-mail, through a mail server of the operator's (RFC 5321, STARTTLS of RFC 3207, AUTH of RFC 4954)."""

from __future__ import annotations

from certwright.connectors.channel.smtp.channel import SmtpChannel
from certwright.connectors.channel.smtp.envelope import as_email

__all__ = ["SmtpChannel", "as_email"]
