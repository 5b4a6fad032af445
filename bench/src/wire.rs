//! A session that does as little as a client can: prepared statements, one round trip each, text format, as
//! libpq's PQexecPrepared sends them.

use bytes::{Buf, BytesMut};
use postgres_protocol::message::frontend;
use std::error::Error;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

pub struct Session {
    stream: UnixStream,
    output: BytesMut,
    input: BytesMut,
    statements: usize,
    backend: u32,
}

/// A prepared statement of one session.
#[derive(Clone)]
pub struct Statement(String);

impl Session {
    pub fn new(database: &str) -> Session {
        let socket = format!("{}/.s.PGSQL.{}", environment("PGHOST"), environment("PGPORT"));
        let mut session = Session {
            stream: UnixStream::connect(&socket).unwrap_or_else(|error| panic!("{socket}: {error}")),
            output: BytesMut::new(),
            input: BytesMut::with_capacity(1 << 16),
            statements: 0,
            backend: 0,
        };
        let user = environment("PGUSER");
        let parameters = [("user", user.as_str()), ("database", database)];
        frontend::startup_message(parameters, &mut session.output).expect("startup message");
        session.round_trip();
        session
    }

    /// Keeps the backend on these cores.
    pub fn pin(&mut self, cores: &str) {
        pin(self.backend, cores);
    }

    pub fn execute(&mut self, sql: &str) -> usize {
        frontend::query(sql, &mut self.output).expect("query message");
        self.round_trip()
    }

    pub fn prepare(&mut self, sql: &str) -> Statement {
        self.statements += 1;
        let name = format!("s{}", self.statements);
        frontend::parse(&name, sql, [], &mut self.output).expect("parse message");
        frontend::sync(&mut self.output);
        self.round_trip();
        Statement(name)
    }

    /// Runs a prepared statement; the number of rows.
    pub fn call(&mut self, statement: &Statement, parameters: &[&[u8]]) -> usize {
        let bound = frontend::bind(
            "",
            &statement.0,
            [],
            parameters,
            |parameter, out| -> Result<_, Box<dyn Error + Sync + Send>> {
                out.extend_from_slice(parameter);
                Ok(postgres_protocol::IsNull::No)
            },
            [],
            &mut self.output,
        );
        assert!(bound.is_ok(), "bind message");
        frontend::describe(b'P', "", &mut self.output).expect("describe message");
        frontend::execute("", 0, &mut self.output).expect("execute message");
        frontend::sync(&mut self.output);
        self.round_trip()
    }

    /// Sends what is to be sent, and reads until the server is ready again.
    fn round_trip(&mut self) -> usize {
        self.stream.write_all(&self.output).expect("server listens");
        self.output.clear();
        let mut rows = 0;
        loop {
            while let [tag, a, b, c, d, ..] = self.input[..] {
                let length = 1 + u32::from_be_bytes([a, b, c, d]) as usize;
                if self.input.len() < length {
                    break;
                }
                match tag {
                    b'E' => panic!("{}", String::from_utf8_lossy(&self.input[5..length]).replace('\0', " ")),
                    b'D' => rows += 1,
                    b'K' => {
                        let pid = self.input[5..9].try_into().expect("four bytes");
                        self.backend = u32::from_be_bytes(pid);
                    }
                    _ => (),
                }
                self.input.advance(length);
                if tag == b'Z' {
                    return rows;
                }
            }
            let mut chunk = [0; 1 << 16];
            let read = self.stream.read(&mut chunk).expect("server answers");
            assert!(read > 0, "server closed the connection");
            self.input.extend_from_slice(&chunk[..read]);
        }
    }
}

pub fn environment(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; run by scripts/bench"))
}

/// Keeps the thread that calls on these cores.
pub fn pin_thread(cores: &str) {
    let own = std::fs::read_link("/proc/thread-self").expect("the name of a thread");
    let number = own.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
    pin(number.expect("the number of a thread"), cores);
}

/// Keeps a process or thread on these cores.
pub fn pin(process: u32, cores: &str) {
    let pinned = Command::new("taskset").args(["-p", "-c", cores, &process.to_string()]).output();
    assert!(pinned.is_ok_and(|output| output.status.success()), "taskset works");
}
