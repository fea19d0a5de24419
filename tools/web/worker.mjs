// worker.mjs - the model beside the page, so that the page stays live. A message {id, call, ...}
// is answered by any number of {id, progress} and {id, part}, then {id, result} or {id, failure}.
import {open} from './megabyte.mjs';

let model = null, before = Promise.resolve();

async function answer({id, call, bytes, options}) {
  let told = 0;
  const onProgress = done => { // twenty times a second at most
    if (performance.now() - told < 50) return;
    told = performance.now();
    postMessage({id, progress: done});
  };
  try {
    let result;
    if (call === 'open') {
      model = await open(bytes);
      result = model.info;
    } else if (call === 'generate') {
      result = model.generate(bytes, {...options, onBytes: part => postMessage({id, part})});
    } else {
      result = model[call](bytes, {...options, onProgress});
    }
    postMessage({id, result});
  } catch (e) {
    postMessage({id, failure: e.message});
  }
}

onmessage = ({data}) => { before = before.then(() => answer(data)); }; // one after the other
