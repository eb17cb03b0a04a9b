//! A project with the real Prisma, which `tests/setup` installs.

use std::path::{Path, PathBuf};

/// Stock `adapter-pg` knows no columns of type `name`, and sends a script in pieces; both only matter where its driver
/// stands in for the native engine, which wants a download. And the timer of that engine's lock, and an idle
/// session, would each keep node for another ten seconds after every deploy.
const CONFIG: &str = "\
import { defineConfig } from 'prisma/config'; import { PrismaPg } from '@prisma/adapter-pg'; import pg from 'pg'
const timer: any = globalThis.setTimeout
globalThis.setTimeout = ((...a: any[]) => { const t = timer(...a); if (a[1] === 10000) t.unref(); return t }) as any
class Pool extends pg.Pool { async query(...a: any[]) { const r: any = await (super.query as any)(...a)
  for (const f of r?.fields ?? []) if (f.dataTypeID === 19 || f.dataTypeID === 18) f.dataTypeID = 25; return r } }
class Adapter extends PrismaPg { async connect() { const a: any = await super.connect()
  a.executeScript = async (s: string) => { try { await a.client.query(s) } catch (e) { a.onError(e) } }; return a } }
export default defineConfig({ experimental: { adapter: true }, engine: 'js', schema: 'prisma/schema.prisma',
  migrations: { path: 'prisma/migrations' },
  adapter: async () => new Adapter(new Pool({ connectionString: process.env.DATABASE_URL, max: 1, allowExitOnIdle: true })) })
";

/// Without `engineType` it would want a download, and without `url` too.
const SCHEMA: &str = r#"generator client {
  provider = "prisma-client"
  engineType = "client"
  output = "../generated"
}

datasource db {
  provider = "postgresql"
  url = env("DATABASE_URL")
}
"#;

/// A project in a directory of the test's.
pub(crate) struct Prisma {
    root: PathBuf,
}

impl Prisma {
    /// Without migrations yet.
    #[track_caller]
    pub(crate) fn project(root: &Path) -> Self {
        Self::within(root, "")
    }

    /// In a directory below the one that has `node_modules`, as in a monorepo.
    #[track_caller]
    pub(crate) fn within(root: &Path, directory: &str) -> Self {
        let installed = std::env::var("TEST_PRISMA").unwrap_or_default();
        assert!(!installed.is_empty(), "Prisma is missing: run `tests/setup test`");
        let link = root.join("node_modules");
        std::os::unix::fs::symlink(Path::new(&installed).join("node_modules"), link)
            .expect("a link");
        let this = Self { root: root.join(directory) };
        this.write("prisma.config.ts", CONFIG);
        this.write("prisma/schema.prisma", SCHEMA);
        this.write("prisma/migrations/migration_lock.toml", "provider = \"postgresql\"\n");
        this
    }

    /// Adds a migration, or edits it.
    pub(crate) fn migration(&self, name: &str, sql: &str) {
        self.write(&format!("prisma/migrations/{name}/migration.sql"), sql);
    }

    /// Takes a migration back before it is deployed.
    #[track_caller]
    pub(crate) fn without(&self, name: &str) {
        let directory = self.root.join("prisma/migrations").join(name);
        std::fs::remove_dir_all(directory).expect("it was there");
    }

    /// The scripts of its `package.json`.
    pub(crate) fn scripts(&self, scripts: &serde_json::Value) {
        let package = serde_json::json!({"name": "app", "private": true, "scripts": scripts});
        self.write("package.json", &package.to_string());
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root.join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, text).expect("a file");
    }
}
