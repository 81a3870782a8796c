//! HLS with unmodified ffmpeg: it fetches key info and keys from the gateway and encrypts by itself.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use testkit::world::{RunningGateway, World, key_id};
use transcode_confidential::protocol::api::CreateKey;

use crate::{
    GATEWAY, KEY,
    ffmpeg::{self, Running},
    world,
};

/// Seconds of the film.
const SECONDS: u32 = 6;

struct Studio {
    world: World,
    gateway: RunningGateway,
    film: PathBuf,
    playlist: PathBuf,
}

impl Studio {
    /// A key whose versions are good for three uses, and a new media key every second.
    async fn open() -> Self {
        let world = world().await;
        let request = CreateKey {
            id: key_id(KEY),
            max_age_secs: Some(3600),
            max_uses: Some(3),
            require_attestation: Some(false),
        };
        world.operator().client.generate_key(&request).await.unwrap();
        let gateway = world
            .gateway(GATEWAY, |settings| {
                settings.period = 1.try_into().unwrap();
                settings.patience = Duration::from_secs(60);
            })
            .await;
        let (film, playlist) = (world.dir().join("film.ts"), world.dir().join("out.m3u8"));
        ffmpeg::film(&film, SECONDS).await;
        Self { world, gateway, film, playlist }
    }

    /// Packages in real time, in segments of a second.
    fn package(&self, output: &str, more: &[&str]) -> Running {
        let info = format!("{}/hls/{KEY}/main/keyinfo", self.gateway.url);
        let mut arguments = vec!["-re", "-i", self.film.to_str().unwrap(), "-c", "copy", "-f", "hls", "-hls_time", "1"];
        arguments.extend(["-hls_list_size", "0", "-hls_flags", "periodic_rekey", "-hls_key_info_file", &info]);
        arguments.extend(more);
        arguments.push(output);
        Running::start(ffmpeg::command(&arguments))
    }

    async fn finished(&self, packager: Running) {
        let (succeeded, said) = packager.ended().await;
        assert!(succeeded, "{said}");
    }

    async fn plays_back_identical(&self) {
        let expected = ffmpeg::frames_of_file(&self.film).await;
        assert_eq!(expected.len(), 20 * SECONDS as usize);
        assert_eq!(ffmpeg::frames(self.playlist.to_str().unwrap()).await, expected);
    }
}

fn keys_of(playlist: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(playlist).unwrap();
    let keys = text.lines().filter_map(|line| line.strip_prefix("#EXT-X-KEY:METHOD=AES-128,URI=\""));
    keys.map(|line| line.split('"').next().unwrap().to_owned()).collect()
}

fn segments(playlist: &Path) -> usize {
    std::fs::read_to_string(playlist).unwrap_or_default().lines().filter(|line| line.ends_with(".ts")).count()
}

async fn until_segments(playlist: &Path, count: usize) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
    while segments(playlist) < count {
        assert!(tokio::time::Instant::now() < deadline, "the packager makes no segments");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn segments_are_encrypted_under_changing_keys_and_play_back_identical() {
    if !ffmpeg::is_here() {
        return;
    }
    let studio = Studio::open().await;
    let packager = studio.package(studio.playlist.to_str().unwrap(), &[]);
    studio.finished(packager).await;
    let keys = keys_of(&studio.playlist);
    assert!(keys.len() >= 3, "{keys:?}");
    let first = std::fs::read(studio.world.dir().join("out0.ts")).unwrap();
    assert_ne!(first[0], 0x47, "no transport stream: it is encrypted");
    studio.plays_back_identical().await;
    let checked = studio.world.check().intact();
    let key = checked.key(KEY);
    assert!(key.versions.len() > 1, "the policy rotated it");
    assert_eq!(key.versions.iter().map(|version| version.uses).sum::<u64>(), keys.len() as u64, "one use a period");
    assert!(key.versions.iter().all(|version| version.uses <= 3));
    // What was rotated since still plays.
    studio.world.operator().rotate(KEY).await.unwrap();
    studio.plays_back_identical().await;
}

#[tokio::test]
async fn a_stream_survives_that_the_enclave_is_killed_and_started_again() {
    if !ffmpeg::is_here() {
        return;
    }
    let mut studio = Studio::open().await;
    let packager = studio.package(studio.playlist.to_str().unwrap(), &[]);
    until_segments(&studio.playlist, 2).await;
    studio.world.kill_enclave().await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let image = studio.world.image().clone();
    studio.world.launch(&image).await.unwrap();
    studio.finished(packager).await;
    assert!(keys_of(&studio.playlist).len() >= 2);
    studio.plays_back_identical().await;
    studio.world.check().intact();
}

#[tokio::test]
async fn a_revoked_key_ends_the_stream_and_what_was_packaged() {
    if !ffmpeg::is_here() {
        return;
    }
    let studio = Studio::open().await;
    let packager = studio.package(studio.playlist.to_str().unwrap(), &[]);
    until_segments(&studio.playlist, 2).await;
    studio.world.operator().revoke(KEY).await.unwrap();
    let revoked_at = segments(&studio.playlist);
    // What ffmpeg makes of that is its own affair; it must not go on encrypting.
    packager.ended().await;
    let written = segments(&studio.playlist);
    assert!(
        written <= revoked_at + 2 && written < SECONDS as usize,
        "{written} segments, {revoked_at} at the revocation"
    );
    let played = ffmpeg::run(&[
        "-protocol_whitelist",
        "file,http,tcp,crypto",
        "-allowed_extensions",
        "ALL",
        "-i",
        studio.playlist.to_str().unwrap(),
        "-f",
        "null",
        "-",
    ])
    .await;
    assert!(!played.status.success() || !played.stderr.is_empty(), "no key, no picture");
    studio.world.check().intact();
}

#[tokio::test]
async fn with_output_over_http_ffmpeg_fetches_keys_by_put() {
    if !ffmpeg::is_here() {
        return;
    }
    let studio = Studio::open().await;
    let origin = origin(studio.world.dir().to_owned()).await;
    let packager = studio.package(&format!("{origin}/out.m3u8"), &["-method", "PUT"]);
    studio.finished(packager).await;
    assert!(keys_of(&studio.playlist).len() >= 2);
    studio.plays_back_identical().await;
}

/// A web server that keeps what is put, in a directory.
async fn origin(dir: PathBuf) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let dir = dir.clone();
            let keep = service_fn(move |request: Request<Incoming>| {
                let file = dir.join(request.uri().path().trim_start_matches('/'));
                async move {
                    let body = request.into_body().collect().await?.to_bytes();
                    std::fs::write(file, body).unwrap();
                    Ok::<_, hyper::Error>(Response::new(String::new()))
                }
            });
            // ffmpeg does not wait for answers, and closes.
            let mut http = hyper::server::conn::http1::Builder::new();
            tokio::spawn(http.half_close(true).serve_connection(TokioIo::new(stream), keep));
        }
    });
    format!("http://{address}")
}
