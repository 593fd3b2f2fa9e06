use std::time::Duration;

use testcontainers::runners::AsyncRunner;
use testcontainers::{GenericImage, TestcontainersError};

use crate::docker::Docker;
use crate::{Error, KafkaVersion, Result};

/// Names another image; `{version}` in it stands for the Kafka version.
const VARIABLE: &str = "OTTLA_KAFKA_IMAGE";
/// The official image, and the one that `testcontainers/run` builds where no registry is reachable.
const CANDIDATES: [&str; 2] = ["apache/kafka:{version}", "ottla-kafka:{version}"];
const PULL: Duration = Duration::from_secs(300);

/// The image for a version: the one asked for, or the first candidate that Docker has, or the
/// official one pulled. Both start from the same `KAFKA_*` variables and have the tools in
/// `/opt/kafka/bin`.
pub(crate) async fn find(
    docker: &Docker,
    version: &KafkaVersion,
    asked: Option<&str>,
) -> Result<GenericImage> {
    let asked = asked
        .map(str::to_owned)
        .or_else(|| std::env::var(VARIABLE).ok().filter(|v| !v.is_empty()));
    let candidates: Vec<String> = match asked {
        Some(image) => vec![image],
        None => CANDIDATES.map(str::to_owned).to_vec(),
    };
    let candidates: Vec<String> = candidates
        .into_iter()
        .map(|image| image.replace("{version}", &version.to_string()))
        .collect();
    for image in &candidates {
        if docker.has_image(image).await {
            return Ok(named(image));
        }
    }
    let pull = candidates.first().map(|image| named(image).pull_image());
    let why = match pull {
        None => return Err(Error::Usage("no image is named".to_owned())),
        Some(pull) => match tokio::time::timeout(PULL, pull).await {
            Ok(Ok(request)) => return Ok(request.image().clone()),
            Ok(Err(TestcontainersError::Client(e))) => e.to_string(),
            Ok(Err(e)) => e.to_string(),
            Err(_) => format!("no end in {PULL:?}"),
        },
    };
    Err(Error::NoImage {
        tried: candidates,
        why,
    })
}

fn named(image: &str) -> GenericImage {
    // A colon before the last slash belongs to the registry's port.
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => GenericImage::new(name, tag),
        _ => GenericImage::new(image, "latest"),
    }
}
