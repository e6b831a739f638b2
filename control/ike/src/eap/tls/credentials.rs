//! Certificates and keys of IKE as TLS takes them: the same ends are believed, and the same keys sign.

use crate::{
    crypto::signature::{Curve, Hash, PrivateKey, Scheme},
    eap::Tls,
    identity::IdPattern,
    pki::{
        certificate::Certificate,
        chain::{Shown, Trust},
    },
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    ServerConfig, SignatureAlgorithm, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring as provider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, Signer, SigningKey},
    version::{TLS12, TLS13},
};
use std::{fmt, sync::Arc};

fn provider() -> Arc<CryptoProvider> {
    Arc::new(provider::default_provider())
}

/// For an authenticator of users of an identity.
pub(super) fn server(tls: &Tls, user: IdPattern, unix_secs: u64) -> Result<Arc<ServerConfig>, Error> {
    let verifier = Arc::new(Verifier::new(tls, user, unix_secs));
    let builder =
        ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13, &TLS12])?;
    let mut config =
        builder.with_client_cert_verifier(verifier).with_cert_resolver(Arc::new(Own(certified(tls))));
    // Nothing of a session is kept: IKE has a resumption of its own (RFC 5723).
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// For a user of an authenticator of an identity.
pub(super) fn client(tls: &Tls, authority: IdPattern, unix_secs: u64) -> Result<Arc<ClientConfig>, Error> {
    let verifier = Arc::new(Verifier::new(tls, authority, unix_secs));
    let builder =
        ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13, &TLS12])?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = builder.with_client_cert_resolver(Arc::new(Own(certified(tls))));
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

fn certified(tls: &Tls) -> Arc<CertifiedKey> {
    let chain = tls.credential.payloads().map(|payload| payload.data.into()).collect();
    let schemes = tls.credential.public().schemes();
    Arc::new(CertifiedKey::new(chain, Arc::new(Key { key: tls.credential.key().clone(), schemes })))
}

/// Our certificate, whatever the other end asks for.
#[derive(Debug)]
struct Own(Arc<CertifiedKey>);

impl ResolvesServerCert for Own {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

impl ResolvesClientCert for Own {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A private key, and how it can sign.
#[derive(Clone)]
struct Key {
    key: Arc<PrivateKey>,
    schemes: &'static [Scheme],
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// What TLS calls a way to sign.
fn of_tls(scheme: Scheme) -> Option<SignatureScheme> {
    Some(match scheme {
        Scheme::RsaPkcs1(Hash::Sha256) => SignatureScheme::RSA_PKCS1_SHA256,
        Scheme::RsaPkcs1(Hash::Sha384) => SignatureScheme::RSA_PKCS1_SHA384,
        Scheme::RsaPkcs1(Hash::Sha512) => SignatureScheme::RSA_PKCS1_SHA512,
        Scheme::RsaPss(Hash::Sha256) => SignatureScheme::RSA_PSS_SHA256,
        Scheme::RsaPss(Hash::Sha384) => SignatureScheme::RSA_PSS_SHA384,
        Scheme::RsaPss(Hash::Sha512) => SignatureScheme::RSA_PSS_SHA512,
        Scheme::Ecdsa(Hash::Sha256) => SignatureScheme::ECDSA_NISTP256_SHA256,
        Scheme::Ecdsa(Hash::Sha384) => SignatureScheme::ECDSA_NISTP384_SHA384,
        Scheme::Ecdsa(Hash::Sha512) => SignatureScheme::ECDSA_NISTP521_SHA512,
        Scheme::Ed25519 => SignatureScheme::ED25519,
        Scheme::Ed448 => SignatureScheme::ED448,
        Scheme::RsaSha1 | Scheme::RsaBare | Scheme::EcdsaBare(_) | Scheme::EcdsaOf(_) => return None,
    })
}

impl SigningKey for Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        // In TLS 1.3 a hash goes with a curve, which is that of its own size.
        let curve = [Curve::P256, Curve::P384, Curve::P521];
        let own = curve.into_iter().find(|curve| self.schemes.contains(&Scheme::EcdsaOf(*curve)));
        let fits = |scheme: Scheme| match (scheme, own) {
            (Scheme::Ecdsa(hash), Some(curve)) => hash == curve.hash(),
            _ => true,
        };
        let all = self.schemes.iter().filter(|scheme| fits(**scheme));
        let named = all.filter_map(|scheme| Some((*scheme, of_tls(*scheme)?)));
        let (scheme, name) = named.into_iter().find(|(_, name)| offered.contains(name))?;
        Some(Box::new(Signing { key: self.key.clone(), scheme, name }))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.schemes.first() {
            Some(Scheme::Ed25519) => SignatureAlgorithm::ED25519,
            Some(Scheme::Ed448) => SignatureAlgorithm::ED448,
            Some(Scheme::Ecdsa(_) | Scheme::EcdsaOf(_)) => SignatureAlgorithm::ECDSA,
            _ => SignatureAlgorithm::RSA,
        }
    }
}

struct Signing {
    key: Arc<PrivateKey>,
    scheme: Scheme,
    name: SignatureScheme,
}

impl fmt::Debug for Signing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} (hidden)", self.scheme)
    }
}

impl Signer for Signing {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        self.key.sign(self.scheme, message, &mut System).map_err(|error| Error::General(error.to_string()))
    }

    fn scheme(&self) -> SignatureScheme {
        self.name
    }
}

/// The system's randomness, as all of TLS has it.
struct System;

impl rand_core::TryRng for System {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut octets = [0; 4];
        self.try_fill_bytes(&mut octets)?;
        Ok(u32::from_le_bytes(octets))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut octets = [0; 8];
        self.try_fill_bytes(&mut octets)?;
        Ok(u64::from_le_bytes(octets))
    }

    fn try_fill_bytes(&mut self, octets: &mut [u8]) -> Result<(), Self::Error> {
        SystemRandom::new().fill(octets).expect("without the system's randomness nothing goes on");
        Ok(())
    }
}

impl rand_core::TryCryptoRng for System {}

/// Whom to believe: whoever is in IKE, and is of an identity.
#[derive(Debug)]
struct Verifier {
    trust: Arc<Trust>,
    id: IdPattern,
    unix_secs: u64,
    provider: Arc<CryptoProvider>,
    authorities: Vec<DistinguishedName>,
}

impl Verifier {
    fn new(tls: &Tls, id: IdPattern, unix_secs: u64) -> Verifier {
        let authorities =
            tls.trust.anchors.iter().map(|anchor| anchor.subject().der().to_vec().into()).collect();
        Verifier { trust: tls.trust.clone(), id, unix_secs, provider: provider(), authorities }
    }

    fn verify(&self, end: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), Error> {
        let refused = |why: String| {
            Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Refused(why)))))
        };
        let end = Certificate::from_der(end).map_err(|error| refused(error.to_string()))?;
        let certificates = others.iter().take(super::super::MOST_CERTIFICATES);
        let certificates = certificates.filter_map(|other| Certificate::from_der(other).ok()).collect();
        let shown = Shown { certificates, ..Shown::default() };
        self.trust.verify(&end, &shown, self.unix_secs).map_err(|error| refused(error.to_string()))?;
        match self.id.identity() {
            Some(id) if end.proves(&id) => Ok(()),
            None if self.id == IdPattern::Any => Ok(()),
            _ => Err(refused(format!("the certificate of {} is not that of {}", end.subject(), self.id))),
        }
    }

    fn is_signed(
        &self,
        message: &[u8],
        by: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
        verify: fn(
            &[u8],
            &CertificateDer<'_>,
            &DigitallySignedStruct,
            &rustls::crypto::WebPkiSupportedAlgorithms,
        ) -> Result<HandshakeSignatureValid, Error>,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify(message, by, signature, &self.provider.signature_verification_algorithms)
    }
}

/// Why a certificate is not believed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            by: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.is_signed(message, by, signature, verify_tls12_signature)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            by: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.is_signed(message, by, signature, verify_tls13_signature)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end, others).map(|()| ServerCertVerified::assertion())
    }

    signatures!();
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.authorities
    }

    fn verify_client_cert(
        &self,
        end: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end, others).map(|()| ClientCertVerified::assertion())
    }

    signatures!();
}
