use super::*;

fn shell(script: &str) -> ChildSpec {
    ChildSpec::new("/bin/sh").arg("-c").arg(script)
}

#[tokio::test]
async fn a_failing_program_tells_its_code_and_last_words() {
    let mut child = Child::spawn(shell("echo 'sh: error: no such thing' >&2; exit 3")).unwrap();
    let error = child.wait().await.unwrap_err();
    assert_eq!(error.to_string(), "sh failed with exit code 3: error: no such thing");
}

#[tokio::test]
async fn a_killed_program_tells_the_signal() {
    let mut child = Child::spawn(shell("kill -9 $$")).unwrap();
    let error = child.wait().await.unwrap_err();
    assert_eq!(error.to_string(), "sh was killed by signal 9");
}

#[tokio::test]
async fn output_is_captured_and_input_is_fed() {
    assert_eq!(capture(shell("echo hello")).await.unwrap(), b"hello\n");
    let file = tempfile::NamedTempFile::new().unwrap();
    let copy = format!("cat > {}", file.path().display());
    feed(shell(&copy), vec![b'x'; 300_000]).await.unwrap();
    assert_eq!(std::fs::metadata(file.path()).unwrap().len(), 300_000);
    let error = feed(shell("exit 4"), vec![b'x'; 3_000_000]).await.unwrap_err();
    assert_eq!(error.to_string(), "sh failed with exit code 4");
}

/// `stdbuf` tells the library by two variables; what they do to a dump is measured in docs/performance.md.
#[tokio::test]
async fn a_dump_is_written_in_large_pieces_where_stdbuf_is_there() {
    let with = shell("env").buffered_stdout();
    let told = String::from_utf8(capture(with.clone()).await.unwrap()).unwrap();
    assert!(told.contains("_STDBUF_O=65536\n") && told.contains("LD_PRELOAD="), "{told}");
    let without = with.command_from(Some("/nowhere".as_ref()));
    assert_eq!(without.get_program(), "/bin/sh");
}

#[tokio::test]
async fn a_missing_program_is_named() {
    let error = Child::spawn(ChildSpec::new("/nowhere/pg_dump")).unwrap_err();
    assert_eq!(error.to_string(), "cannot run /nowhere/pg_dump");
}

#[tokio::test]
async fn the_server_is_told_by_variables_and_private_files_alone() {
    let info = ConnectionInfo::socket(Path::new("/run/x"), 6000, "u", "d");
    let script = "env | grep ^PG | sort; cat \"$PGPASSFILE\"";
    let output = capture(shell(script).connection(&info).purpose("test")).await.unwrap();
    let text = String::from_utf8(output).unwrap();
    let names: Vec<&str> = text.lines().filter_map(|line| line.split('=').next()).collect();
    assert_eq!(
        names,
        [
            "PGAPPNAME",
            "PGCONNECT_TIMEOUT",
            "PGDATABASE",
            "PGHOST",
            "PGPASSFILE",
            "PGPORT",
            "PGSSLMODE",
            "PGTZ",
            "PGUSER"
        ]
    );
    assert!(text.contains("PGAPPNAME=pgkeep/test"));
}

fn is_alive(pid: i32) -> bool {
    // A zombie of another parent counts as gone.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with('Z'))
}

async fn gone(pid: i32) -> bool {
    let deadline = Instant::now() + Duration::from_secs(10);
    while is_alive(pid) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    !is_alive(pid)
}

#[tokio::test]
async fn dropping_ends_the_whole_group() {
    let mut child = Child::spawn(shell("sleep 600 & echo $!; wait").piped_stdout()).unwrap();
    let mut line = [0; 16];
    let count = child.take_stdout().unwrap().read(&mut line).unwrap();
    let grandchild: i32 = std::str::from_utf8(&line[..count]).unwrap().trim().parse().unwrap();
    let leader = i32::try_from(child.id()).unwrap();
    assert!(is_alive(grandchild));
    drop(child);
    assert!(gone(leader).await && gone(grandchild).await);
}

#[tokio::test]
async fn who_does_not_hear_is_killed_after_the_grace() {
    let spec = shell("trap '' TERM; echo ready; while :; do sleep 1; done")
        .piped_stdout()
        .stopped_by(Signal::TERM, Duration::from_millis(200));
    let mut child = Child::spawn(spec).unwrap();
    let mut word = [0; 6];
    child.take_stdout().unwrap().read_exact(&mut word).unwrap();
    let exit = child.stop().await.unwrap();
    assert_eq!((exit.code, exit.signal), (None, Some(9)));
}

#[tokio::test]
async fn a_grandchild_that_holds_stderr_does_not_hold_us() {
    let started = Instant::now();
    let mut child = Child::spawn(shell("sleep 20 & exit 1")).unwrap();
    assert!(child.wait().await.is_err());
    assert!(started.elapsed() < Duration::from_secs(15));
}

#[tokio::test]
async fn waiting_can_be_given_up_and_taken_up_again() {
    let mut child = Child::spawn(shell("read line; exit 5").piped_stdin()).unwrap();
    let short = Duration::from_millis(20);
    assert!(tokio::time::timeout(short, child.exit()).await.is_err());
    drop(child.take_stdin());
    assert_eq!(child.exit().await.unwrap().code, Some(5));
    assert_eq!(child.exit().await.unwrap().code, Some(5));
}
