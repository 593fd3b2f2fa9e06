use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::{Error, Result};

/// The listener that brokers use among themselves, and the tools inside a container.
pub(crate) const INNER_PORT: u16 = 9094;
pub(crate) const CONTROLLER_PORT: u16 = 9093;
/// Where the PEM files are in a broker's container.
pub(crate) const BROKER_PEM: &str = "/etc/kafka/secrets/broker.pem";
pub(crate) const CA_PEM: &str = "/etc/kafka/secrets/ca.pem";

/// A way for clients to reach the brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Listener {
    /// No encryption, no authentication: always there.
    Plaintext,
    /// TLS; clients need no certificate.
    Ssl,
    /// TLS; clients must show a certificate of the test CA.
    MutualTls,
    /// SASL without encryption.
    SaslPlaintext,
    /// SASL over TLS.
    SaslSsl,
}

impl Listener {
    /// The name in the broker's settings. None ends in `SSL`: the official image would then ask for
    /// key stores of its own.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "CLIENT",
            Self::Ssl => "TLS",
            Self::MutualTls => "MTLS",
            Self::SaslPlaintext => "SASL",
            Self::SaslSsl => "SASLTLS",
        }
    }

    /// The value of `security.protocol` for it.
    #[must_use]
    pub fn protocol(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
            Self::Ssl | Self::MutualTls => "SSL",
            Self::SaslPlaintext => "SASL_PLAINTEXT",
            Self::SaslSsl => "SASL_SSL",
        }
    }

    /// The port inside the container.
    pub(crate) fn inner_port(self) -> u16 {
        match self {
            Self::Plaintext => 9092,
            Self::Ssl => 9192,
            Self::MutualTls => 9292,
            Self::SaslPlaintext => 9392,
            Self::SaslSsl => 9492,
        }
    }

    pub(crate) fn needs_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::MutualTls | Self::SaslSsl)
    }

    pub(crate) fn needs_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

/// A SASL mechanism; the SASL listeners accept all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mechanism {
    /// User and password as they are.
    Plain,
    /// SCRAM with SHA-256.
    ScramSha256,
    /// SCRAM with SHA-512.
    ScramSha512,
    /// A bearer token; the brokers take unsecured ones ([`unsecured_token`]).
    OAuthBearer,
}

impl Mechanism {
    pub(crate) const ALL: [Self; 4] = [
        Self::Plain,
        Self::ScramSha256,
        Self::ScramSha512,
        Self::OAuthBearer,
    ];

    /// The value of `sasl.mechanism` for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::OAuthBearer => "OAUTHBEARER",
        }
    }

    /// What a broker is told about the mechanism.
    pub(crate) fn broker_jaas(self, user: &Credentials) -> String {
        match self {
            Self::Plain => format!(
                "org.apache.kafka.common.security.plain.PlainLoginModule required user_{}=\"{}\";",
                user.name, user.password
            ),
            Self::ScramSha256 | Self::ScramSha512 => {
                "org.apache.kafka.common.security.scram.ScramLoginModule required;".to_owned()
            }
            Self::OAuthBearer => {
                "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required \
                 unsecuredLoginStringClaim_sub=\"broker\";"
                    .to_owned()
            }
        }
    }

    /// What a Java client is told to log in.
    pub(crate) fn client_jaas(self, user: &Credentials) -> String {
        let Credentials { name, password } = user;
        match self {
            Self::Plain => format!(
                "org.apache.kafka.common.security.plain.PlainLoginModule required username=\"{name}\" password=\"{password}\";"
            ),
            Self::ScramSha256 | Self::ScramSha512 => format!(
                "org.apache.kafka.common.security.scram.ScramLoginModule required username=\"{name}\" password=\"{password}\";"
            ),
            Self::OAuthBearer => format!(
                "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"{name}\";"
            ),
        }
    }
}

/// A user of the SASL listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credentials {
    /// The user.
    pub name: String,
    /// The password, for PLAIN and SCRAM.
    pub password: String,
}

impl Default for Credentials {
    fn default() -> Self {
        Self {
            name: "alice".to_owned(),
            password: "alice-secret".to_owned(),
        }
    }
}

/// An unsigned JWT for `OAUTHBEARER`, valid from now for `lifetime`.
#[must_use]
pub fn unsecured_token(subject: &str, lifetime: Duration) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let claims = format!(
        r#"{{"sub":"{subject}","iat":{now},"exp":{}}}"#,
        now + lifetime.as_secs()
    );
    format!(
        "{}.{}.",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
        URL_SAFE_NO_PAD.encode(claims)
    )
}

/// A test CA with one certificate for the brokers and one for a client, all as PEM. A second one,
/// made by [`Pki::generate`], has a client certificate that the first one's brokers refuse.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Pki {
    /// The CA's certificate.
    pub ca_cert: String,
    /// The brokers' certificate, for `localhost`, `127.0.0.1` and the names given.
    pub broker_cert: String,
    /// The brokers' private key (PKCS#8).
    pub broker_key: String,
    /// The client's certificate, for the principal `CN=client`.
    pub client_cert: String,
    /// The client's private key (PKCS#8).
    pub client_key: String,
}

impl Pki {
    /// Makes a new CA and new keys; `names` are more host names for the brokers.
    ///
    /// # Errors
    /// [`Error::Certificate`] if a name is none.
    pub fn generate(names: &[String]) -> Result<Self> {
        Self::make(names).map_err(|e| Error::Certificate(e.to_string()))
    }

    fn make(names: &[String]) -> Result<Self, rcgen::Error> {
        let mut ca = CertificateParams::new([])?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        ca.distinguished_name
            .push(DnType::CommonName, "ottla test CA");
        let ca_key = KeyPair::generate()?;
        let ca_cert = ca.self_signed(&ca_key)?.pem();
        let issuer = Issuer::new(ca, ca_key);

        let leaf = |name: &str, hosts: Vec<String>, usage| {
            let mut params = CertificateParams::new(hosts)?;
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = usage;
            let key = KeyPair::generate()?;
            let cert = params.signed_by(&key, &issuer)?;
            Ok::<_, rcgen::Error>((cert.pem(), key.serialize_pem()))
        };
        let hosts = ["localhost", "127.0.0.1"]
            .into_iter()
            .map(str::to_owned)
            .chain(names.iter().cloned())
            .collect();
        let both = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let (broker_cert, broker_key) = leaf("broker", hosts, both)?;
        let (client_cert, client_key) = leaf(
            "client",
            Vec::new(),
            vec![ExtendedKeyUsagePurpose::ClientAuth],
        )?;
        Ok(Self {
            ca_cert,
            broker_cert,
            broker_key,
            client_cert,
            client_key,
        })
    }

    /// Key and certificate in one PEM file, as the brokers load it.
    pub(crate) fn broker_pem(&self) -> String {
        format!("{}{}", self.broker_key, self.broker_cert)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_three_parts_the_last_one_empty() {
        let token = unsecured_token("bob", Duration::from_secs(60));
        let parts: Vec<&str> = token.split('.').collect();
        assert_eq!(parts.len(), 3);
        assert_eq!(parts[2], "");
        let claims = URL_SAFE_NO_PAD.decode(parts[1]).unwrap();
        assert!(
            String::from_utf8(claims)
                .unwrap()
                .starts_with(r#"{"sub":"bob""#)
        );
    }

    #[test]
    fn two_authorities_differ() {
        let names = ["kafka-1".to_owned()];
        let (one, two) = (
            Pki::generate(&names).unwrap(),
            Pki::generate(&names).unwrap(),
        );
        assert_ne!(one.ca_cert, two.ca_cert);
        assert!(one.broker_pem().contains("PRIVATE KEY"));
    }
}
