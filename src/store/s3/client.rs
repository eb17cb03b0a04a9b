//! The SDK's client, set up once: credentials, region, connections, time limits.
//!
//! The SDK's own retries are off. Its budget is one bucket for the whole process, which an outage empties,
//! and after that every call fails at the first hiccup; [`super::retry`] is the one place that tries again.

use aws_config::meta::region::{ProvideRegion, RegionProviderChain};
use aws_config::profile::ProfileFileRegionProvider;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    RuntimeComponents, SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder as HttpBuilder, Connector};

use super::clock::Clock;
use super::options::{Checksums, S3Options};
use crate::store::service::ServiceFault;

/// The region that is named where it does not matter or cannot be known; a service that minds says so.
const ANY_REGION: &str = "us-east-1";

/// A client, and what it turned out to use.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) client: Client,
    pub(super) clock: Clock,
    pub(super) region: String,
    /// For messages.
    pub(super) endpoint: String,
}

/// Reads the configuration files and makes the client. Nothing is asked of the network here, except the
/// machine's region where nothing at all tells one.
pub(super) async fn connect(options: &S3Options) -> Result<Connected, ServiceFault> {
    let limits = &options.limits;
    let http = http_client(options)?;
    // The time limit for an answer is the caller's, who knows the size: a fixed one would cut long puts.
    let timeouts = TimeoutConfig::builder().connect_timeout(limits.connect).build();
    let stalled = StalledStreamProtectionConfig::enabled().grace_period(limits.idle).build();
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http)
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard());
    if let Some(given) = &options.credentials {
        let credentials = Credentials::new(
            &given.access_key_id,
            &given.secret_access_key,
            given.session_token.clone(),
            None,
            "pgkeep",
        );
        loader = loader.credentials_provider(credentials);
    }
    if let Some(profile) = &options.profile {
        loader = loader.profile_name(profile);
    }
    let region = region(options).await;
    let shared = loader.region(region.clone()).load().await;

    // The store's alone: who hands out credentials is asked where AWS programs ask.
    let custom = options.endpoint.clone().or_else(|| shared.endpoint_url().map(str::to_owned));
    let checksums = options.checksums_for(custom.is_some());
    let (request, response) = match checksums {
        Checksums::WhenSupported => {
            (RequestChecksumCalculation::WhenSupported, ResponseChecksumValidation::WhenSupported)
        }
        Checksums::WhenRequired => {
            (RequestChecksumCalculation::WhenRequired, ResponseChecksumValidation::WhenRequired)
        }
    };
    let clock = Clock::default();
    let mut config = aws_sdk_s3::config::Builder::from(&shared)
        .interceptor(clock.clone())
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(stalled)
        .force_path_style(options.path_style.unwrap_or(custom.is_some()))
        .request_checksum_calculation(request)
        .response_checksum_validation(response);
    if let Some(endpoint) = &options.endpoint {
        config = config.endpoint_url(endpoint);
    }
    let config = config.build();
    let region = region.as_ref().to_owned();
    let endpoint = custom.unwrap_or_else(|| format!("s3.{region}.amazonaws.com"));
    Ok(Connected { client: Client::from_conf(config), clock, region, endpoint })
}

/// What was configured; else what a profile says; else, where neither an endpoint nor explicit keys tell
/// that this is no machine of Amazon's, what the machine says.
async fn region(options: &S3Options) -> Region {
    if let Some(name) = &options.region {
        return Region::new(name.clone());
    }
    let mut profile = ProfileFileRegionProvider::builder();
    if let Some(name) = &options.profile {
        profile = profile.profile_name(name);
    }
    let found = profile.build().region().await;
    let outside = options.endpoint.is_some() || options.credentials.is_some();
    match found {
        Some(region) => region,
        None if outside => Region::from_static(ANY_REGION),
        None => {
            let chain =
                RegionProviderChain::default_provider().or_else(Region::from_static(ANY_REGION));
            chain.region().await.unwrap_or(Region::from_static(ANY_REGION))
        }
    }
}

fn http_client(options: &S3Options) -> Result<SharedHttpClient, ServiceFault> {
    let mut trust = TrustStore::empty().with_native_roots(true);
    if let Some(path) = &options.ca_bundle {
        let pem = std::fs::read(path).map_err(|error| {
            ServiceFault::Settings(format!("AWS_CA_BUNDLE, {}: {error}", path.display()))
        })?;
        trust = trust.with_pem_certificate(pem);
    }
    let tls = TlsContext::builder()
        .with_trust_store(trust)
        .build()
        .map_err(|error| ServiceFault::Settings(error.to_string()))?;
    let rest = options.limits.rest;
    let connector = move |settings: Option<&_>, _: Option<&RuntimeComponents>| {
        let mut builder = Connector::builder()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(tls.clone())
            .proxy_config(ProxyConfig::from_env())
            .pool_idle_timeout(rest);
        builder.set_connector_settings(settings.cloned());
        builder.build()
    };
    Ok(HttpBuilder::new().build_with_connector_fn(connector))
}

/// The text of the first element of that name; the documents it is for have no attributes and no nesting.
pub(super) fn element<'a>(document: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = document.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    let text = text.trim();
    (!text.is_empty()).then_some(text)
}
