//! Where credentials for a bucket come from when no variable holds them: each way once, with a real request at
//! its end, against the service that hands them out as its documentation says.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;

use crate::support::s3_proxy::{Asked, Fault, Proxy};
use crate::support::s3_server::{S3Place, S3Server};
use crate::support::{Database, Keeper, Server};

/// A store, and a keeper that knows where it is and has no credentials.
fn scene(name: &str) -> (Database, S3Place, Keeper) {
    let database = Server::older().database(name);
    let place = S3Place::of(S3Server::start());
    let mut keeper = Keeper::in_bucket(&database.shop(10).url(), &place, &place.endpoint);
    keeper.unset("AWS_ACCESS_KEY_ID").unset("AWS_SECRET_ACCESS_KEY");
    keeper.set("AWS_EC2_METADATA_DISABLED", "true");
    (database, place, keeper)
}

fn answer(kind: &str, body: &str) -> Fault {
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n");
    Fault::Raw(format!("{head}x-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n{body}").into_bytes())
}

/// A service of its own at that place's side; what it does not know it answers with 404.
fn service(
    place: &S3Place,
    answers: impl Fn(&Asked) -> Option<Fault> + Send + Sync + 'static,
) -> Proxy {
    Proxy::before(place.server().address(), move |asked| {
        answers(asked).unwrap_or_else(|| Fault::Answer(404, String::new()))
    })
}

/// The credentials of `place` as roles of machines and containers give them.
fn role_document(place: &S3Place, token: &str, lasts: Duration) -> String {
    let expiration = Timestamp::now() + lasts;
    format!(
        "{{\"Code\":\"Success\",\"Type\":\"AWS-HMAC\",\"LastUpdated\":\"2026-01-01T00:00:00Z\",\
         \"AccessKeyId\":\"{}\",\"SecretAccessKey\":\"{}\",\"Token\":\"{token}\",\"Expiration\":\"{expiration:.0}\"}}",
        place.access_key, place.secret_key
    )
}

/// The credentials of `place` as the token service gives them for a role, with a session token.
fn assumed(place: &S3Place, action: &str) -> String {
    format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result>\
         <AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/backup/pgkeep</Arn>\
         <AssumedRoleId>ROLE:pgkeep</AssumedRoleId></AssumedRoleUser>\
         <Credentials><AccessKeyId>{}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey>\
         <SessionToken>of-the-role</SessionToken><Expiration>{:.0}</Expiration></Credentials>\
         </{action}Result></{action}Response>",
        place.access_key,
        place.secret_key,
        Timestamp::now() + Duration::from_hours(1),
    )
}

/// The store, which lets nobody in who has the keys of that role and not its session token, as Amazon's.
fn store_for_the_role(place: &S3Place) -> Proxy {
    Proxy::before(place.server().address(), |asked| {
        if asked.head.contains("\r\nx-amz-security-token: of-the-role\r\n") {
            return Fault::None;
        }
        Fault::Answer(403, "<Error><Code>InvalidAccessKeyId</Code></Error>".to_owned())
    })
}

#[test]
fn the_program_of_a_profile_reaches_the_store_and_its_failure_is_told() {
    let (_database, place, mut keeper) = scene("process");
    let work = keeper.work();
    let (program, config) = (work.join("give"), work.join("config"));
    let document = format!(
        "{{\"Version\":1,\"AccessKeyId\":\"{}\",\"SecretAccessKey\":\"{}\"}}",
        place.access_key, place.secret_key
    );
    std::fs::write(&program, format!("#!/bin/sh\necho '{document}'\n")).expect("written");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("a mode");
    let profile = format!("[profile backup]\ncredential_process = {}\n", program.display());
    std::fs::write(&config, profile).expect("written");
    keeper.set("AWS_CONFIG_FILE", &config).set("AWS_PROFILE", "backup");
    keeper.pgkeep(["init"]).run().expect_code(0);
    keeper.snapshot();

    std::fs::write(&program, "#!/bin/sh\necho the vault is sealed >&2\nexit 1\n").expect("written");
    let told = keeper.pgkeep(["list"]).run().expect_failure(5, &["no credentials for the store"]);
    assert!(told.stderr.contains("the vault is sealed"), "{}", told.stderr);
}

#[test]
fn the_role_of_a_machine_reaches_the_store() {
    let (_database, place, mut keeper) = scene("machine");
    let document = role_document(&place, "token", Duration::from_hours(1));
    let machine = service(&place, move |asked| {
        let path = "/latest/meta-data/iam/security-credentials/";
        match (&*asked.method, &*asked.target) {
            ("PUT", "/latest/api/token") => Some(answer("text/plain", "session")),
            _ if !asked.head.contains("x-aws-ec2-metadata-token: session") => None,
            ("GET", target) if target == path => Some(answer("text/plain", "backup-role")),
            ("GET", target) if target == format!("{path}backup-role") => {
                Some(answer("application/json", &document))
            }
            _ => None,
        }
    });
    keeper.unset("AWS_EC2_METADATA_DISABLED");
    keeper.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", machine.endpoint());
    keeper.pgkeep(["init"]).run().expect_code(0);
    // Two questions for the whole command, each asked up to four times where an answer takes longer than the SDK's
    // second, as on a busy machine. Asked for each request of `init` there would be far more.
    let asked = machine.count("GET");
    assert!((2..=8).contains(&asked), "{asked}");
}

#[test]
fn a_web_identity_reaches_the_store() {
    let (_database, place, mut keeper) = scene("webidentity");
    let store = store_for_the_role(&place);
    let document = assumed(&place, "AssumeRoleWithWebIdentity");
    let tokens = service(&place, move |asked| {
        (asked.method == "POST").then(|| answer("text/xml", &document))
    });
    let token = keeper.work().join("token");
    std::fs::write(&token, "header.payload.signature").expect("written");
    keeper
        .set("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/backup")
        .set("AWS_WEB_IDENTITY_TOKEN_FILE", &token);
    // What is said of the store is said of nobody else, and the variable for all services is for all of them.
    keeper.set("AWS_ENDPOINT_URL_S3", store.endpoint()).set("AWS_ENDPOINT_URL", tokens.endpoint());
    keeper.pgkeep(["init"]).run().expect_code(0);
    assert_eq!(tokens.count("POST"), 1, "asked once for the whole command");
    assert!(store.count("PUT") > 0);
    keeper.unset("AWS_ENDPOINT_URL");
    keeper.set("AWS_ENDPOINT_URL_STS", tokens.endpoint());
    keeper.pgkeep(["list"]).run().expect_code(0);
    assert_eq!(tokens.count("POST"), 2);
}

#[test]
fn a_role_that_a_profile_assumes_reaches_the_store_and_its_refusal_is_told() {
    let (_database, place, mut keeper) = scene("assumed");
    let store = store_for_the_role(&place);
    let (document, refuses) = (assumed(&place, "AssumeRole"), Arc::new(AtomicBool::new(false)));
    let switch = Arc::clone(&refuses);
    // Only who shows the keys of the other profile is answered, by a signature of the token service's own.
    let tokens = service(&place, move |asked| {
        let signed = asked.head.contains("credential=akidstaff/")
            && asked.head.contains("/sts/aws4_request");
        let refusal = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>User staff is not \
                       authorized to perform: sts:AssumeRole</Message></Error></ErrorResponse>";
        if asked.method != "POST" || !signed {
            return None;
        }
        let refused = switch.load(Ordering::Relaxed);
        Some(if refused {
            Fault::Answer(403, refusal.to_owned())
        } else {
            answer("text/xml", &document)
        })
    });
    let (config, secrets) = (keeper.work().join("config"), keeper.work().join("credentials"));
    let profile = "[profile backup]\nrole_arn = arn:aws:iam::123456789012:role/backup\nsource_profile = staff\n";
    std::fs::write(&config, profile).expect("written");
    let keys = "[staff]\naws_access_key_id = AKIDSTAFF\naws_secret_access_key = staff's own\n";
    std::fs::write(&secrets, keys).expect("written");
    keeper
        .set("AWS_CONFIG_FILE", &config)
        .set("AWS_SHARED_CREDENTIALS_FILE", &secrets)
        .set("AWS_PROFILE", "backup")
        .set("AWS_ENDPOINT_URL_S3", store.endpoint())
        .set("AWS_ENDPOINT_URL_STS", tokens.endpoint());
    keeper.pgkeep(["init"]).run().expect_code(0);
    assert_eq!(tokens.count("POST"), 1, "asked once for the whole command");
    keeper.snapshot();

    let asked = store.asked().len();
    refuses.store(true, Ordering::Relaxed);
    let told = keeper.pgkeep(["list"]).run().expect_failure(5, &["no credentials for the store"]);
    assert!(told.stderr.contains("not authorized to perform: sts:AssumeRole"), "{}", told.stderr);
    assert_eq!(store.asked().len(), asked, "nobody is asked without credentials");
}

#[test]
fn credentials_that_end_midway_are_renewed() {
    let (_database, place, mut keeper) = scene("renewed");
    // Each question gets a token that is as good as over, and the store refuses all but the newest two.
    let given = Arc::new(AtomicUsize::new(0));
    let (giving, document) = (Arc::clone(&given), {
        let (access_key, secret_key) = (place.access_key.clone(), place.secret_key.clone());
        move |token: usize| {
            let expiration = Timestamp::now() + Duration::from_secs(3);
            format!(
                "{{\"AccessKeyId\":\"{access_key}\",\"SecretAccessKey\":\"{secret_key}\",\
                 \"Token\":\"t{token}\",\"Expiration\":\"{expiration:.0}\"}}"
            )
        }
    });
    let role = service(&place, move |_| {
        let token = giving.fetch_add(1, Ordering::Relaxed) + 1;
        Some(answer("application/json", &document(token)))
    });
    let store = Proxy::before(place.server().address(), move |asked| {
        let newest = given.load(Ordering::Relaxed);
        let good = |token: usize| asked.head.contains(&format!("x-amz-security-token: t{token}\r"));
        if newest < 3 || (newest - 2..=newest).any(good) {
            return Fault::None;
        }
        Fault::Answer(400, "<Error><Code>ExpiredToken</Code></Error>".to_owned())
    });
    keeper
        .set("AWS_ENDPOINT_URL", store.endpoint())
        .set("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/role", role.endpoint()));
    keeper.pgkeep(["init"]).run().expect_code(0);
    keeper.snapshot();
    assert!(role.asked().len() > 4, "asked {} times", role.asked().len());
}
