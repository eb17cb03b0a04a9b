#!/usr/bin/env node
// Asks a running `pgkeep daemon` for a snapshot, tells what happens, and ends with pgkeep's own exit code.
//
//   PGKEEP_URL=http://pgkeep:7878 PGKEEP_TOKEN_FILE=/run/secrets/pgkeep_token \
//     node hook.mjs main kennel_prod --label commit=$GIT_SHA && npx prisma migrate deploy
//
// Node 18 or newer alone, no packages. Docs: docs/guides/hook.md.

import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";

const USAGE = `usage: node hook.mjs CLUSTER DATABASE [--trigger pre-migration|manual|scheduled] [--label NAME=TEXT]… [--timeout SECONDS] [--quiet]

  PGKEEP_URL          where the daemon listens (http://127.0.0.1:7878)
  PGKEEP_TOKEN        the token of daemon.token_file
  PGKEEP_TOKEN_FILE   a file that holds it; taken first`;

// pgkeep's exit codes, where no answer of the daemon tells one.
const UNEXPECTED = 1;
const WRONG_USE = 2;
const BUSY = 6;

const POLL_MS = 1000;
// One answer; the daemon answers at once.
const ANSWER_MS = 30_000;
// How long the daemon may be out of reach (it is being restarted, say).
const UNREACHED_MS = 60_000;

class Failed extends Error {
  constructor(code, message, hint) {
    super(message);
    this.code = code;
    this.hint = hint;
  }
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function options() {
  let parsed;
  try {
    parsed = parseArgs({
      allowPositionals: true,
      options: {
        trigger: { type: "string" },
        label: { type: "string", multiple: true, default: [] },
        timeout: { type: "string", default: "3600" },
        quiet: { type: "boolean", default: false },
        help: { type: "boolean", default: false },
      },
    });
  } catch (error) {
    throw new Failed(WRONG_USE, error.message, USAGE);
  }
  const { values, positionals } = parsed;
  if (values.help) {
    console.log(USAGE);
    process.exit(0);
  }
  if (positionals.length !== 2) {
    throw new Failed(WRONG_USE, "a cluster and a database are needed", USAGE);
  }
  const timeout = Number(values.timeout);
  if (!(timeout > 0)) {
    throw new Failed(WRONG_USE, `--timeout takes seconds, not ${values.timeout}`, USAGE);
  }
  const labels = {};
  for (const label of values.label) {
    const at = label.indexOf("=");
    if (at < 1) throw new Failed(WRONG_USE, `a label is NAME=TEXT, not ${label}`, USAGE);
    labels[label.slice(0, at)] = label.slice(at + 1);
  }
  const [cluster, database] = positionals;
  return { cluster, database, labels, trigger: values.trigger, timeout, quiet: values.quiet };
}

function token() {
  const file = process.env.PGKEEP_TOKEN_FILE;
  let text = process.env.PGKEEP_TOKEN ?? "";
  if (file) {
    try {
      text = readFileSync(file, "utf8");
    } catch (error) {
      throw new Failed(WRONG_USE, `the token cannot be read: ${error.message}`, "check PGKEEP_TOKEN_FILE");
    }
  }
  if (!text.trim()) {
    throw new Failed(WRONG_USE, "there is no token", "set PGKEEP_TOKEN_FILE or PGKEEP_TOKEN");
  }
  return text.trim();
}

function address() {
  const text = process.env.PGKEEP_URL || "http://127.0.0.1:7878";
  try {
    return new URL(text);
  } catch {
    throw new Failed(WRONG_USE, "PGKEEP_URL is not a URL", "such as http://127.0.0.1:7878");
  }
}

// One request. What fails on the way comes back as an error without `code`.
async function request(url, init = {}) {
  const response = await fetch(url, { ...init, signal: AbortSignal.timeout(ANSWER_MS) });
  const text = await response.text();
  let body;
  try {
    body = JSON.parse(text);
  } catch {
    // A proxy that answers in its own words is not pgkeep.
    const code = response.status >= 500 ? undefined : UNEXPECTED;
    throw new Failed(code, `${url.origin} answered ${response.status} and no JSON`, "is that pgkeep's address?");
  }
  if (body.error) {
    const code = response.status === 503 ? undefined : body.error.exit_code ?? UNEXPECTED;
    throw new Failed(code, body.error.message, body.error.hint);
  }
  return body;
}

// Tries again while the daemon cannot be reached or takes on nothing, up to `until`.
async function insist(until, say, work) {
  let told = false;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      const passing = !(error instanceof Failed) || error.code === undefined;
      if (!passing) throw error;
      const message = error.cause?.message || error.message;
      if (Date.now() + POLL_MS >= until) {
        throw new Failed(error instanceof Failed ? BUSY : UNEXPECTED, message, error.hint ?? "is the daemon running, and PGKEEP_URL its address?");
      }
      if (!told) say(`waiting: ${message}`);
      told = true;
      await sleep(POLL_MS);
    }
  }
}

const size = (bytes) => {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (bytes >= 1000 && unit + 1 < units.length) {
    bytes /= 1024;
    unit += 1;
  }
  return `${bytes.toFixed(unit > 0 && bytes < 10 ? 1 : 0)} ${units[unit]}`;
};

async function main() {
  const { cluster, database, labels, trigger, timeout, quiet } = options();
  const say = (text) => quiet || console.error(`pgkeep: ${text}`);
  const base = address();
  const deadline = Date.now() + timeout * 1000;
  const patience = () => Math.min(deadline, Date.now() + UNREACHED_MS);
  const path = `/v1/clusters/${encodeURIComponent(cluster)}/databases/${encodeURIComponent(database)}/snapshots`;
  const asked = {
    method: "POST",
    headers: { authorization: `Bearer ${token()}`, "content-type": "application/json" },
    body: JSON.stringify({ ...(trigger && { trigger }), labels }),
  };

  let run = await insist(patience(), say, () => request(new URL(path, base), asked));
  const place = new URL(`/v1/runs/${encodeURIComponent(run.id)}`, base);
  say(`snapshot of ${cluster}/${database} asked for, run ${run.id}`);

  let shown = "";
  while (run.state !== "succeeded" && run.state !== "failed") {
    const step = run.state === "queued" ? "waits for its turn" : run.step || "running";
    if (step !== shown) say(step);
    shown = step;
    if (Date.now() >= deadline) {
      throw new Failed(BUSY, `not done after ${timeout} s; the run goes on`, `${place}`);
    }
    await sleep(POLL_MS);
    try {
      run = await insist(patience(), say, () => request(place));
    } catch (error) {
      if (error.code !== 8) throw error;
      // Runs are known until the daemon ends: it was restarted, and the snapshot with it.
      throw new Failed(UNEXPECTED, "the daemon was restarted and the run with it", "ask again; `pgkeep list` tells what is there");
    }
  }
  if (run.state === "failed") {
    const error = run.error ?? {};
    throw new Failed(error.exit_code ?? UNEXPECTED, error.message ?? "the snapshot failed", error.hint);
  }
  const snapshot = run.result ?? {};
  say(`snapshot ${snapshot.id} done: ${size(snapshot.source_bytes ?? 0)}, ${size(snapshot.stored_bytes ?? 0)} of it new`);
  // For `ID=$(node hook.mjs …)`, and `pgkeep restore $ID` afterwards.
  console.log(snapshot.id);
}

main().catch((error) => {
  console.error(`error: ${error.message}`);
  if (error.hint) console.error(`hint: ${error.hint}`);
  process.exitCode = error.code || UNEXPECTED;
});
