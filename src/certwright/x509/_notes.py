"""The install notes of download archives: short, and naming the very files that lie beside them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

_LOOK: Final = """Look at what the server now shows:

     openssl s_client -connect localhost:443 -servername <your site> </dev/null | openssl x509 -noout -dates -subject
"""

_NOTES: Final = {
    "nginx": """Install this certificate in nginx
=================================

Files
  {base}.crt  the certificate and its intermediates, in the order nginx wants
{key}
1. Copy the files to the server and protect the key:

     sudo install -D -m 0644 {base}.crt /etc/nginx/certs/{base}.crt
     sudo install -D -m 0600 {base}.key /etc/nginx/certs/{base}.key

2. In the server block of the site:

     listen 443 ssl;
     ssl_certificate     /etc/nginx/certs/{base}.crt;
     ssl_certificate_key /etc/nginx/certs/{base}.key;

3. Test the configuration, and only if it is good, load it:

     sudo nginx -t && sudo nginx -s reload

4. {look}""",
    "apache": """Install this certificate in Apache httpd
========================================

Files
  {base}.crt  the certificate
{chain_file}{key}
1. Copy the files to the server and protect the key:

     sudo install -D -m 0644 {base}.crt -t /etc/apache2/certs/
{chain_copy}     sudo install -D -m 0600 {base}.key -t /etc/apache2/certs/

2. In the virtual host of the site (mod_ssl must be enabled: sudo a2enmod ssl):

     SSLEngine on
     SSLCertificateFile      /etc/apache2/certs/{base}.crt
     SSLCertificateKeyFile   /etc/apache2/certs/{base}.key
{chain_directive}
3. Test the configuration, and only if it is good, load it:

     sudo apachectl configtest && sudo apachectl graceful

4. {look}""",
    "tomcat": """Install this certificate in Tomcat
==================================

Files
  {base}.pfx           key, certificate and intermediates (PKCS#12); use this one
  {base}.jks           the same as JKS, for programs that read nothing else
  {base}.password.txt  the passphrase of both: keep it secret, like the stores

1. Copy the store to the server:

     sudo install -m 0640 -g tomcat {base}.pfx /etc/tomcat10/{base}.pfx

2. In server.xml, with the passphrase of {base}.password.txt:

     <Connector port="443" protocol="org.apache.coyote.http11.Http11NioProtocol" SSLEnabled="true">
       <SSLHostConfig>
         <Certificate certificateKeystoreFile="/etc/tomcat10/{base}.pfx" certificateKeystoreType="PKCS12"
                      certificateKeystorePassword="..." />
       </SSLHostConfig>
     </Connector>

   With {base}.jks instead: certificateKeystoreType="JKS".

3. Restart Tomcat, then remove the copies you don't need.

4. {look}""",
    "iis": """Install this certificate in IIS
===============================

Files
  {base}.pfx           key, certificate and intermediates (PKCS#12)
  {base}.password.txt  its passphrase: keep it secret, like the store

1. In PowerShell as administrator, with the passphrase of {base}.password.txt when asked:

     $password = Read-Host -AsSecureString
     Import-PfxCertificate -FilePath {base}.pfx -CertStoreLocation Cert:\\LocalMachine\\My -Password $password

   Windows before Server 2019 refuses the modern encryption; take the archive with legacy encryption there.

2. IIS Manager: the site, Bindings, https, choose the certificate. Tick "Require Server Name Indication" if several
   sites share the address.

3. Delete {base}.pfx and {base}.password.txt from the server.
""",
    "weblogic": """Install this certificate in WebLogic
====================================

Files
  {base}.jks           key, certificate and intermediates (JKS); the alias is {alias}
  {base}.password.txt  the passphrase of store and key: keep it secret, like the store

1. Copy {base}.jks to the server, readable by the user WebLogic runs as only.

2. Administration Console: the server, Keystores, Custom Identity and Java Standard Trust:

     Custom Identity Keystore             <path>/{base}.jks
     Custom Identity Keystore Type        JKS
     Custom Identity Keystore Passphrase  what {base}.password.txt holds

3. The server, SSL:

     Private Key Alias       {alias}
     Private Key Passphrase  what {base}.password.txt holds

4. Control, Restart SSL. Then look at what the server now shows:

     openssl s_client -connect localhost:7002 </dev/null | openssl x509 -noout -dates -subject
""",
    "resin": """Install this certificate in Resin
=================================

Files
  {base}.crt  the certificate and its intermediates
{key}
1. Copy both files to the server's keys directory; the key readable by the user Resin runs as only.

2. In resin.xml (or resin.properties: openssl_file, openssl_key):

     <http address="*" port="443">
       <openssl>
         <certificate-file>keys/{base}.crt</certificate-file>
         <certificate-chain-file>keys/{base}.crt</certificate-chain-file>
         <certificate-key-file>keys/{base}.key</certificate-key-file>
       </openssl>
     </http>

3. Restart Resin.

4. {look}""",
    "haproxy": """Install this certificate in HAProxy
===================================

Files
  {base}.pem  certificate, intermediates and private key in one: keep it secret

1. Copy it to the server and protect it:

     sudo install -D -m 0600 {base}.pem /etc/haproxy/certs/{base}.pem

2. In the frontend:

     bind :443 ssl crt /etc/haproxy/certs/{base}.pem

3. Test the configuration, and only if it is good, load it:

     sudo haproxy -c -f /etc/haproxy/haproxy.cfg && sudo systemctl reload haproxy

4. {look}""",
    "kubernetes": """Install this certificate in Kubernetes
======================================

Files
  {base}.yaml  a Secret of type kubernetes.io/tls called {secret}: it holds the private key, keep it secret

1. Create or replace it in the namespace of your Ingress or Gateway:

     kubectl apply -n <namespace> -f {base}.yaml

2. Name it in the Ingress:

     tls:
       - hosts: [<your site>]
         secretName: {secret}

3. Delete {base}.yaml; don't put it into version control.
""",
    "pem": """This certificate as PEM
=======================

Files
  {base}.pem  the certificate, then its intermediates
{key}
openssl x509 -in {base}.pem -noout -text shows the first of them.
""",
    "der": """This certificate as DER (binary)
================================

Files
  {base}.cer  the certificate; intermediates, if any, are {base}_chain1.cer and so on
{key_der}
openssl x509 -inform DER -in {base}.cer -noout -text shows it.
""",
    "p7b": """This certificate as PKCS#7
==========================

Files
  {base}.p7b  the certificate and its intermediates, binary, without the key

Windows imports it by a double click; openssl pkcs7 -inform DER -in {base}.p7b -print_certs shows it.
""",
    "chain": """The certificates above this one
===============================

Files
{chain_file}{root_file}""",
}


def note(server: str, base: str, secret: str, files: Collection[str]) -> str:
    """The text of README.txt for an archive of these files. Raises KeyError for an unknown server."""
    key = f"  {base}.key  the private key: keep it secret\n"
    if f"{base}.key" not in files:
        key = f"  (no key: it stayed with whoever made the request; name its file {base}.key)\n"
    key_der = f"  {base}.key.der  the private key (PKCS#8): keep it secret\n" if f"{base}.key.der" in files else ""
    chain, root = f"{base}_chain.crt", f"{base}_root.crt"
    has_chain = chain in files
    return _NOTES[server].format(
        base=base,
        alias=base.lower(),
        secret=secret,
        key=key,
        key_der=key_der,
        look=_LOOK,
        chain_file=f"  {chain}  the intermediates, in order\n" if has_chain else "",
        chain_copy=f"     sudo install -D -m 0644 {chain} -t /etc/apache2/certs/\n" if has_chain else "",
        chain_directive=f"     SSLCertificateChainFile /etc/apache2/certs/{chain}\n" if has_chain else "",
        root_file=f"  {root}  the root, for clients that don't know it yet\n" if root in files else "",
    )
