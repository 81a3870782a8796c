//! `confidential watch`: segments are encrypted as a packager finishes them.

use std::{
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use testkit::world::World;

use crate::{
    KEY, confidential,
    ffmpeg::{self, Running},
    world,
};

async fn finished(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

async fn must(command: Command) -> String {
    let output = finished(command).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

async fn decrypted(world: &World, message: &Path) -> Vec<u8> {
    world.operator().decrypt(&std::fs::read(message).unwrap()).await.unwrap()
}

#[tokio::test]
async fn once_encrypts_what_is_there_and_nothing_twice() {
    let world = world().await;
    world.operator().generate(KEY).await.unwrap();
    let (segments, out) = (world.dir().join("in"), world.dir().join("out"));
    std::fs::create_dir(&segments).unwrap();
    std::fs::create_dir(&out).unwrap();
    for number in 0..5_u8 {
        std::fs::write(segments.join(format!("{number}.ts")), vec![number; 10_000]).unwrap();
    }
    let watch = || {
        let (segments, out) = (segments.to_str().unwrap(), out.to_str().unwrap());
        confidential(&world, &["--json", "watch", segments, "--key", KEY, "-o", out, "--once", "--content-id", "film"])
    };
    let said = must(watch()).await;
    let objects: Vec<serde_json::Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((objects.len(), &objects[5]["files"]), (6, &5.into()), "{said}");
    for number in 0..5_u8 {
        assert_eq!(decrypted(&world, &out.join(format!("{number}.ts.tce"))).await, vec![number; 10_000]);
    }
    assert_eq!(must(watch()).await.lines().count(), 1, "nothing was left to do");
    std::fs::write(segments.join("3.ts"), b"another").unwrap();
    // As a crash leaves it: a message that nobody noted, and half of another in a temporary file.
    std::fs::remove_file(out.join("4.ts.tce")).unwrap();
    std::fs::write(out.join(".confidential-half"), b"half").unwrap();
    assert_eq!(must(watch()).await.lines().count(), 3, "what changed, and what has no message");
    assert_eq!(decrypted(&world, &out.join("3.ts.tce")).await, b"another");
    let checked = world.check().intact();
    assert_eq!(checked.uses(KEY, 1), 7);
    assert!(checked.events.iter().any(|event| event.content_id.as_deref() == Some("film/3.ts")));
}

#[tokio::test]
async fn a_key_that_was_revoked_ends_it_and_an_enclave_that_is_away_does_not_harm_it() {
    let mut world = world().await;
    world.operator().generate(KEY).await.unwrap();
    let segments = world.dir().join("in");
    std::fs::create_dir(&segments).unwrap();
    std::fs::write(segments.join("a.ts"), b"a").unwrap();
    let path = segments.to_str().unwrap().to_owned();
    world.kill_enclave().await;
    let away = finished(confidential(&world, &["watch", &path, "--key", KEY, "--once"])).await;
    assert_eq!(away.status.code(), Some(6));
    assert_eq!(std::fs::read_dir(&segments).unwrap().count(), 1, "nothing is left of the try");
    let image = world.image().clone();
    world.launch(&image).await.unwrap();
    must(confidential(&world, &["watch", &path, "--key", KEY, "--once", "--delete"])).await;
    assert!(!segments.join("a.ts").exists() && segments.join("a.ts.tce").exists());
    std::fs::write(segments.join("b.ts"), b"b").unwrap();
    world.operator().revoke(KEY).await.unwrap();
    let refused = finished(confidential(&world, &["watch", &path, "--key", KEY, "--once", "--delete"])).await;
    assert_eq!(refused.status.code(), Some(5));
    assert!(segments.join("b.ts").exists() && !segments.join("b.ts.tce").exists());
}

#[tokio::test]
async fn segments_of_a_running_packager_are_encrypted_until_its_playlist_ends() {
    if !ffmpeg::is_here() {
        return;
    }
    let world = world().await;
    world.operator().generate(KEY).await.unwrap();
    let (film, segments) = (world.dir().join("film.ts"), world.dir().join("in"));
    std::fs::create_dir(&segments).unwrap();
    ffmpeg::film(&film, 4).await;
    let playlist = segments.join("film.m3u8");
    let packager = Running::start(ffmpeg::command(&[
        "-re",
        "-i",
        film.to_str().unwrap(),
        "-c",
        "copy",
        "-f",
        "hls",
        "-hls_time",
        "1",
        "-hls_list_size",
        "0",
        playlist.to_str().unwrap(),
    ]));
    let watch = Running::start(confidential(
        &world,
        &["watch", segments.to_str().unwrap(), "--key", KEY, "--until-end", "--settle", "3600", "--delete"],
    ));
    // While the packager works its first segments are done already.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
    while !segments.join("film0.ts.tce").exists() {
        assert!(tokio::time::Instant::now() < deadline, "no message");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(packager.ended().await.0);
    let (succeeded, said) = watch.ended().await;
    assert!(succeeded, "{said}");
    let mut whole = Vec::new();
    for name in std::fs::read_to_string(&playlist).unwrap().lines().filter(|line| line.ends_with(".ts")) {
        assert!(!segments.join(name).exists(), "the plaintext is gone");
        whole.extend(decrypted(&world, &segments.join(format!("{name}.tce"))).await);
    }
    let joined = world.dir().join("joined.ts");
    std::fs::write(&joined, whole).unwrap();
    assert_eq!(ffmpeg::frames_of_file(&joined).await, ffmpeg::frames_of_file(&film).await);
    world.check().intact();
}
