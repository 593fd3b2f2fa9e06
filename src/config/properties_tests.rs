use super::*;

fn pairs(text: &str) -> Vec<(String, String)> {
    parse(text).unwrap()
}

fn one(text: &str) -> (String, String) {
    let mut pairs = pairs(text);
    assert_eq!(pairs.len(), 1, "{text:?}: {pairs:?}");
    pairs.remove(0)
}

#[test]
fn properties_files_are_read_as_java_reads_them() {
    for (text, key, value) in [
        ("a=b", "a", "b"),
        ("a = b ", "a", "b"),
        ("a: b", "a", "b"),
        ("a b c", "a", "b c"),
        ("a\t:\tb", "a", "b"),
        ("a", "a", ""),
        ("a=", "a", ""),
        ("a==b", "a", "=b"),
        ("a = = b", "a", "= b"),
        ("  a=b=c:d", "a", "b=c:d"),
        ("a\\ b\\=c=d", "a b=c", "d"),
        ("a=b\\\n   c", "a", "bc"),
        ("a=b\\\r\n\tc", "a", "bc"),
        ("a=b\\\\", "a", "b\\"),
        ("a=b\\", "a", "b"),
        ("a=x\\ ", "a", "x "),
        ("a=\\ttab\\nline\\q", "a", "\ttab\nlineq"),
        ("a=caf\\u00E9", "a", "café"),
        ("a=\\ud83d\\ude00!", "a", "😀!"),
        ("# no\n! nor this\n\n   \na=b # yes", "a", "b # yes"),
        ("a=b\\\n# not a comment", "a", "b# not a comment"),
    ] {
        let found = one(text);
        assert_eq!(
            (found.0.as_str(), found.1.as_str()),
            (key, value),
            "{text:?}"
        );
    }
    assert!(pairs("# only\n!comments\r\n").is_empty());
    assert_eq!(pairs("a=1\rb=2\na=3").len(), 3, "repeated keys stay");
}

#[test]
fn a_broken_escape_is_reported_with_its_line() {
    for text in ["a=b\nc=\\u12", "a=b\nc=\\u12g4", "x=y\n\\u+123=1"] {
        let error = parse(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("line 2"), "{error}");
    }
}

fn error(name: &str, value: &str) -> String {
    let error = Settings::from_properties([(name, value)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = error.to_string();
    assert!(text.starts_with(&format!("{name}: ")), "{text}");
    text
}

#[test]
fn unknown_names_come_with_the_likely_one() {
    for (name, likely) in [
        ("lingr.ms", "linger.ms"),
        ("linger", "linger.ms"),
        ("LINGER.MS", "linger.ms"),
        ("linger_ms", "linger.ms"),
        ("bootstrap.server", "bootstrap.servers"),
        ("boostrap.servers", "bootstrap.servers"),
        ("compression", "compression.type"),
        ("queue.buffering.max.ms", "linger.ms"),
        ("message.max.bytes", "max.request.size"),
        ("metadata.broker.list", "bootstrap.servers"),
        ("sesion.timeout.ms", "session.timeout.ms"),
        (
            "max.inflight.requests.per.connection",
            "max.in.flight.requests.per.connection",
        ),
    ] {
        let error = error(name, "1");
        assert!(
            error.contains(&format!("did you mean {likely}?")),
            "{error}"
        );
    }
    for name in ["colour", "", "a", "x.y.z"] {
        assert_eq!(
            support(name),
            Support::Unknown { suggestion: None },
            "{name}"
        );
    }
}

#[test]
fn settings_of_kafka_that_are_missing_here_say_what_to_do() {
    for (name, advice) in [
        ("key.serializer", "bytes"),
        ("ssl.keystore.location", "TLS"),
        ("sasl.jaas.config", "SASL"),
        ("transaction.two.phase.commit.enable", "two-phase"),
        ("metrics.num.samples", "metrics"),
        ("compression.lz4.level", "one speed"),
    ] {
        let error = error(name, "secret-value");
        assert!(
            error.contains("not available") && error.contains(advice),
            "{error}"
        );
        assert!(
            !error.contains("secret-value"),
            "values may be secrets: {error}"
        );
    }
}

#[test]
fn assignors_go_by_short_names_and_by_those_of_javas_classes() {
    let strategies = |text: &str| {
        let settings = Settings::from_properties([("partition.assignment.strategy", text)]);
        settings.map(|settings| settings.consumer.assignment_strategy)
    };
    let java = "org.apache.kafka.clients.consumer.StickyAssignor, range,sticky";
    assert_eq!(strategies(java).unwrap(), ["sticky", "range"]);
    let all = "roundrobin,cooperative-sticky";
    assert_eq!(
        strategies(all).unwrap(),
        ["roundrobin", "cooperative-sticky"]
    );
    for wrong in ["", ",", "com.example.Mine", "RangeAssignor"] {
        let error = strategies(wrong).unwrap_err().to_string();
        assert!(
            error.starts_with("partition.assignment.strategy: "),
            "{error}"
        );
    }
}

#[test]
fn values_for_which_a_feature_is_missing_are_told_from_nonsense() {
    for (name, value, advice) in [
        ("security.protocol", "SASL_SSL", "neither TLS nor SASL"),
        ("enable.metrics.push", "true", "KIP-714"),
        (
            "client.dns.lookup",
            "resolve_canonical_bootstrap_servers_only",
            "use_all_dns_ips",
        ),
    ] {
        let error = error(name, value);
        assert!(
            error.contains("not available") && error.contains(advice),
            "{error}"
        );
    }
    let error = error("security.protocol", "TLS");
    assert!(
        error.contains("\"TLS\" is not allowed, only PLAINTEXT"),
        "{error}"
    );
}

#[test]
fn bad_values_name_the_value_and_what_is_allowed() {
    for (name, value, parts) in [
        (
            "linger.ms",
            "soon",
            ["\"soon\" is not a whole number", "0 or more"],
        ),
        ("linger.ms", "-1", ["-1", "0 or more"]),
        ("linger.ms", "1.5", ["1.5", "whole number"]),
        ("retries", "2147483648", ["2147483648", "0 to 2147483647"]),
        (
            "max.in.flight.requests.per.connection",
            "0",
            ["0", "1 to 2147483647"],
        ),
        (
            "send.buffer.bytes",
            "-2",
            ["-2", "-1 for the operating system's"],
        ),
        ("connections.max.idle.ms", "-7", ["-7", "-1 for no limit"]),
        ("acks", "2", ["\"2\"", "all, -1, 0, 1"]),
        ("check.crcs", "yes", ["\"yes\"", "true nor false"]),
        (
            "isolation.level",
            "serializable",
            ["serializable", "read_uncommitted, read_committed"],
        ),
        ("auto.offset.reset", "smallest", ["smallest", "earliest"]),
        ("auto.offset.reset", "by_duration:1h", ["1h", "PT1H30M"]),
        ("compression.type", "brotli", ["brotli", "zstd"]),
        ("compression.gzip.level", "0", ["0", "1 to 9"]),
        ("compression.zstd.level", "23", ["23", "-131072 to 22"]),
        ("bootstrap.servers", "localhost", ["localhost", "no port"]),
        ("bootstrap.servers", " , ", ["no address", "host:port"]),
        (
            "group.instance.id",
            "",
            ["must not be empty", "leave it out"],
        ),
        (
            "metadata.recovery.strategy",
            "hope",
            ["hope", "rebootstrap, none"],
        ),
    ] {
        let error = error(name, value);
        for part in parts {
            assert!(error.contains(part), "{error}");
        }
    }
}

#[test]
fn values_are_taken_over() {
    let settings = Settings::from_properties([
        ("bootstrap.servers", "a:1,[::1]:2"),
        ("client.id", " me "),
        ("connections.max.idle.ms", "-1"),
        ("receive.buffer.bytes", "65536"),
        ("metadata.recovery.strategy", "NONE"),
        ("acks", "-1"),
        ("linger.ms", "7"),
        ("linger.ms", "8"),
        ("auto.offset.reset", "by_duration:PT1H"),
        ("client.rack", ""),
    ])
    .unwrap();
    assert_eq!(settings.client.bootstrap, ["a:1", "[::1]:2"]);
    assert_eq!(settings.client.client_id, "me");
    assert_eq!(settings.client.connections_max_idle, None);
    assert_eq!(settings.client.receive_buffer, Some(65_536));
    assert!(!settings.client.rebootstrap);
    assert_eq!(
        settings.producer.linger.as_millis(),
        8,
        "the last one counts"
    );
    assert_eq!(settings.consumer.client_rack, None);
    let hour = std::time::Duration::from_secs(3_600);
    assert_eq!(
        settings.consumer.offset_reset,
        crate::OffsetReset::ByDuration(hour)
    );
}

#[test]
fn a_level_and_its_codec_may_come_in_either_order() {
    for properties in [
        [
            ("compression.type", "gzip"),
            ("compression.gzip.level", "9"),
        ],
        [
            ("compression.gzip.level", "9"),
            ("compression.type", "gzip"),
        ],
    ] {
        let settings = Settings::from_properties(properties).unwrap();
        assert_eq!(settings.producer.compression.level(), Some(9));
    }
    let other = [("compression.zstd.level", "9"), ("compression.type", "lz4")];
    let settings = Settings::from_properties(other).unwrap();
    assert_eq!(settings.producer.compression, crate::Compression::Lz4);
}

#[test]
fn the_distance_of_two_names_counts_letters() {
    assert_eq!(distance("linger.ms", "linger.ms"), 0);
    assert_eq!(distance("lingr.ms", "linger.ms"), 1);
    assert_eq!(distance("kitten", "sitting"), 3);
    assert_eq!(distance("", "abc"), 3);
}
