// A generation of 90 s, by clients that give a request up after 60 s and are
// left as they come: nobody loses sight of the prompt. Each variant has a
// ComfyUI and a supervisor of its own, and all of them wait at once.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { Session, variants } from './client.mjs';
import { Rig, sampler } from './rig.mjs';

const LONG_MS = 90000;

async function generate(variant) {
	const rig = await new Rig().open();
	const s = await new Session(variant, rig).open();
	try {
		await s.client.listTools(); // so that it knows the schemas
		const start = Date.now();
		const call = (name, args) => s.call(name, args).then((r) => {
			assert.equal(r.isError, false, JSON.stringify(r));
			return r.structuredContent;
		});
		let got = await call('execute_workflow_sync', { workflow: sampler({ steps: 90, step_ms: LONG_MS / 90 }) });
		assert.equal(got.timed_out, true);
		assert.equal(got.status, 'executing');
		const id = got.prompt_id;
		let calls = 1;
		for (; got.status !== 'completed'; calls++) {
			got = await call('wait_for_execution', { prompt_id: id });
			assert.equal(got.prompt_id, id);
		}
		assert.ok(Date.now() - start >= LONG_MS);
		assert.ok(calls <= 3, `${calls} calls`);
		assert.equal(Object.values(got.outputs)[0].images.length, 1);
		const files = await call('list_outputs', { prompt_id: id });
		assert.equal(files.files.length, 1);
		await s.close();
	} finally {
		s.process.kill('SIGKILL');
		await rig.close();
	}
}

describe('90 s', { concurrency: true }, () => {
	for (const variant of variants)
		test(variant.name, { timeout: 180000 }, () => generate(variant));
});
