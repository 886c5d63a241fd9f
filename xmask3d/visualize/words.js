"use strict";
// The text tower of the page and its answers: what `xmask3d query` computes, without a server.

// Inflate (RFC 1951): plain, so that it works in every browser and at once.
const LENGTHS = [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258];
const LENGTH_BITS = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const DISTANCES = [1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577];
const ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
function codeTable(lengths) {
  const most = Math.max(1, ...lengths), table = new Uint16Array(1 << most);
  for (let length = 1, code = 0; length <= most; length++, code <<= 1)
    for (let symbol = 0; symbol < lengths.length; symbol++) {
      if (lengths[symbol] !== length) continue;
      let reversed = 0;
      for (let bit = 0; bit < length; bit++) reversed |= ((code >> bit) & 1) << (length - 1 - bit);
      for (let i = reversed; i < table.length; i += 1 << length) table[i] = (symbol << 4) | length;
      code++;
    }
  return { table, most };
}
// Bits of a stream, the lowest first. `literals` is the loop in which nearly all time goes, on local variables.
class Bits {
  constructor(source) { Object.assign(this, { source, place: 0, held: 0, bits: 0 }); }
  fill(count) { while (this.held < count) { this.bits |= this.source[this.place++] << this.held; this.held += 8; } }
  drop(count) { this.bits >>>= count; this.held -= count; }
  take(count) {
    this.fill(count);
    const value = this.bits & ((1 << count) - 1);
    this.drop(count);
    return value;
  }
  symbol({ table, most }) {
    this.fill(most);
    const found = table[this.bits & ((1 << most) - 1)];
    this.drop(found & 15);
    return found >> 4;
  }
  // Writes literals from `at` on; returns the next place and the symbol that is none.
  literals({ table, most }, out, at) {
    const source = this.source, mask = (1 << most) - 1;
    let { place, held, bits } = this, found;
    for (;;) {
      while (held < most) { bits |= source[place++] << held; held += 8; }
      found = table[bits & mask];
      bits >>>= found & 15; held -= found & 15;
      if (found >= 4096) break;
      out[at++] = found >> 4;
    }
    this.place = place; this.held = held; this.bits = bits;
    return [at, found >> 4];
  }
}
function inflate(source, size) {
  const out = new Uint8Array(size), stream = new Bits(source);
  for (let last = 0, at = 0; !last;) {
    last = stream.take(1);
    const kind = stream.take(2);
    if (kind === 0) {
      const from = stream.place - (stream.held >> 3), length = source[from] | (source[from + 1] << 8);
      out.set(source.subarray(from + 4, from + 4 + length), at);
      Object.assign(stream, { place: from + 4 + length, held: 0, bits: 0 });
      at += length;
      continue;
    }
    let lengths, literals = 288;
    if (kind === 1) {
      lengths = Array.from({ length: 320 }, (_, i) => (i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : i < 288 ? 8 : 5));
    } else {
      literals = stream.take(5) + 257;
      const all = literals + stream.take(5) + 1, codes = new Array(19).fill(0);
      for (let i = 0, count = stream.take(4) + 4; i < count; i++) codes[ORDER[i]] = stream.take(3);
      const table = codeTable(codes);
      for (lengths = []; lengths.length < all;) {
        const found = stream.symbol(table);
        if (found < 16) { lengths.push(found); continue; }
        const again = found === 16 ? 3 + stream.take(2) : found === 17 ? 3 + stream.take(3) : 11 + stream.take(7);
        const value = found === 16 ? lengths[lengths.length - 1] : 0;
        for (let i = 0; i < again; i++) lengths.push(value);
      }
    }
    const main = codeTable(lengths.slice(0, literals)), far = codeTable(lengths.slice(literals));
    for (let found;;) {
      [at, found] = stream.literals(main, out, at);
      if (found === 256) break;
      const length = LENGTHS[found - 257] + stream.take(LENGTH_BITS[found - 257]), code = stream.symbol(far);
      const from = at - DISTANCES[code] - stream.take(code < 4 ? 0 : (code >> 1) - 1);
      for (let i = 0; i < length; i++) out[at + i] = out[from + i];
      at += length;
    }
  }
  return out;
}
function unpack(packed, type) {
  const raw = atob(packed.data), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return new type(inflate(bytes, packed.size).buffer);
}
function halves(packed) {
  return Float32Array.from(unpack(packed, Uint16Array), (half) => {
    const sign = half & 0x8000 ? -1 : 1, exponent = (half >> 10) & 31, fraction = half & 1023;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
  });
}

const plainWord = (word) => word.toLowerCase().replace(/[_-]/g, " ").split(/\s+/).filter(Boolean).join(" ");

// CLIP's byte pairs over a small table, see tokenizer.py.
class Tokenizer {
  constructor(words) {
    const symbols = [], visible = (byte) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    this.symbolOf = new Array(256);
    for (let byte = 0; byte < 256; byte++) if (visible(byte)) { this.symbolOf[byte] = String.fromCharCode(byte); symbols.push(this.symbolOf[byte]); }
    for (let byte = 0, next = 256; byte < 256; byte++) if (!this.symbolOf[byte]) { this.symbolOf[byte] = String.fromCharCode(next++); symbols.push(this.symbolOf[byte]); }
    const merges = new TextDecoder().decode(unpack(words.merges, Uint8Array)).split("\n");
    this.rank = new Map(merges.map((pair, i) => [pair, i]));
    this.id = new Map([...symbols, ...symbols.map((symbol) => symbol + "</w>"), ...merges.map((pair) => pair.replace(" ", ""))].map((token, i) => [token, i]));
    this.row = new Map(words.kept.map((token, i) => [token, i]));
    Object.assign(this, { kept: words.kept.length, size: words.vocabulary, context: words.context });
  }
  rows(text) {
    const straight = text.normalize("NFC").replace(/[\u2018\u2019]/g, "'").replace(/[\u201c\u201d]/g, '"');
    const cleaned = straight.split(/\s+/).filter(Boolean).join(" ").toLowerCase(), found = [];
    for (const piece of cleaned.match(/'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+/giu) || [])
      for (const token of this.join(piece)) found.push(this.id.get(token));
    const shared = this.size - 2 - this.kept;
    const rows = found.slice(0, this.context - 2).map((token) => (this.row.has(token) ? this.row.get(token) : this.kept + (token % shared)));
    return [this.size - 2, ...rows, this.size - 1];
  }
  join(piece) {
    let word = [...new TextEncoder().encode(piece)].map((byte) => this.symbolOf[byte]);
    word[word.length - 1] += "</w>";
    while (word.length > 1) {
      let best = Infinity, pair = "";
      for (let i = 0; i + 1 < word.length; i++) {
        const key = word[i] + " " + word[i + 1], rank = this.rank.get(key);
        if (rank !== undefined && rank < best) { best = rank; pair = key; }
      }
      if (best === Infinity) break;
      const joined = [];
      for (let i = 0; i < word.length;) {
        const both = i + 1 < word.length && word[i] + " " + word[i + 1] === pair;
        joined.push(both ? word[i] + word[i + 1] : word[i]);
        i += both ? 2 : 1;
      }
      word = joined;
    }
    return word;
  }
}

// The transformer of text_tower.py; its output is of length 1 here.
class TextTower {
  constructor(words) {
    this.tokenizer = new Tokenizer(words);
    this.heads = words.heads;
    this.tensors = Object.fromEntries(Object.entries(words.tensors).map(([name, packed]) => [name, halves(packed)]));
    this.layers = Object.keys(this.tensors).filter((name) => name.endsWith("ln_1.weight")).length;
    this.width = this.tensors["ln_final.bias"].length;
    this.known = new Map();
  }
  encode(text) {
    if (!this.known.has(text)) this.known.set(text, this.compute(text));
    return this.known.get(text);
  }
  compute(text) {
    const t = this.tensors, w = this.width, rows = this.tokenizer.rows(text), n = rows.length;
    let x = new Float32Array(n * w);
    rows.forEach((row, i) => { for (let j = 0; j < w; j++) x[i * w + j] = t["token_embedding.weight"][row * w + j] + t.positional_embedding[i * w + j]; });
    for (let layer = 0; layer < this.layers; layer++) x = this.block(x, n, `transformer.resblocks.${layer}.`);
    const last = this.norm(x.subarray((n - 1) * w), 1, "ln_final"), projection = t.text_projection, size = projection.length / w;
    const out = new Float64Array(size);
    for (let i = 0; i < w; i++) for (let j = 0; j < size; j++) out[j] += last[i] * projection[i * size + j];
    const length = Math.max(1e-12, Math.hypot(...out));
    return out.map((value) => value / length);
  }
  block(x, n, name) {
    const w = this.width, size = w / this.heads, mixed = new Float32Array(n * w);
    const qkv = this.linear(this.norm(x, n, name + "ln_1"), n, name + "attn.in_proj_");
    for (let head = 0; head < this.heads; head++)
      for (let i = 0; i < n; i++) {
        const scores = [];
        for (let j = 0; j <= i; j++) {
          let sum = 0;
          for (let a = head * size; a < (head + 1) * size; a++) sum += qkv[i * 3 * w + a] * qkv[j * 3 * w + w + a];
          scores.push(sum / Math.sqrt(size));
        }
        const most = Math.max(...scores), weights = scores.map((score) => Math.exp(score - most)), all = weights.reduce((a, b) => a + b);
        for (let j = 0; j <= i; j++) for (let a = head * size; a < (head + 1) * size; a++) mixed[i * w + a] += (weights[j] / all) * qkv[j * 3 * w + 2 * w + a];
      }
    const first = this.linear(mixed, n, name + "attn.out_proj.").map((value, i) => value + x[i]);
    const hidden = this.linear(this.norm(first, n, name + "ln_2"), n, name + "mlp.c_fc.").map((value) => 0.5 * value * (1 + erf(value / Math.SQRT2)));
    return this.linear(hidden, n, name + "mlp.c_proj.").map((value, i) => value + first[i]);
  }
  linear(x, n, name) {
    const weight = this.tensors[name + "weight"], bias = this.tensors[name + "bias"], rows = bias.length, columns = weight.length / rows;
    const out = new Float32Array(n * rows);
    for (let i = 0; i < n; i++)
      for (let r = 0; r < rows; r++) {
        let sum = bias[r];
        for (let c = 0; c < columns; c++) sum += x[i * columns + c] * weight[r * columns + c];
        out[i * rows + r] = sum;
      }
    return out;
  }
  norm(x, n, name) {
    const w = this.width, out = new Float32Array(n * w), weight = this.tensors[name + ".weight"], bias = this.tensors[name + ".bias"];
    for (let i = 0; i < n; i++) {
      let mean = 0, square = 0;
      for (let j = 0; j < w; j++) mean += x[i * w + j] / w;
      for (let j = 0; j < w; j++) square += (x[i * w + j] - mean) ** 2 / w;
      for (let j = 0; j < w; j++) out[i * w + j] = ((x[i * w + j] - mean) / Math.sqrt(square + 1e-5)) * weight[j] + bias[j];
    }
    return out;
  }
}
function erf(x) { // Abramowitz and Stegun 7.1.26, to 1.5e-7
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const y = 1 - ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t * Math.exp(-x * x);
  return Math.sign(x) * y;
}

// Answers from the saved features, as saved_features.py gives them.
class Answers {
  constructor(words) {
    Object.assign(this, { words, tower: new TextTower(words), wording: new Wording(words), count: words.places });
    this.coefficients = unpack(words.coefficients, Int8Array);
    this.steps = unpack(words.steps, Float32Array);
    this.basis = unpack(words.basis, Float32Array);
    this.mean = unpack(words.mean, Float32Array);
    this.base = halves(words.base);
    this.covered = unpack(words.covered, Uint8Array);
    this.views = unpack(words.views, Int32Array);
    this.parts = words.parts;
    if (this.parts) {
      [this.part, this.placePart] = [words.part, words.place_part].map((packed) => unpack(packed, Int32Array));
      this.divisions = words.divisions.map((packed) => unpack(packed, Int32Array));
    }
    this.size = this.mean.length / 2;
    this.known = new Set(words.base_names.map(plainWord));
  }
  isBase(text) {
    const plain = plainWord(text);
    return this.known.has(plain) || (plain.endsWith("s") && this.known.has(plain.slice(0, -1)));
  }
  // Direction of a class name: the mean over the templates of prompts.
  direction(text) {
    const found = this.words.templates.map((template) => this.tower.encode(template.replace("{}", text)));
    const mean = found[0].map((_, j) => found.reduce((sum, values) => sum + values[j], 0)), length = Math.max(1e-12, Math.hypot(...mean));
    return mean.map((value) => value / length);
  }
  // Cosines of all places with a text: `share` of the model's features and the rest of CLIP's.
  cosines(text, share) {
    const direction = this.direction(text), out = new Float32Array(this.count), size = this.size;
    const along = (values, start) => {
      let model = 0, clip = 0;
      for (let j = 0; j < size; j++) { model += values[start + j] * direction[j]; clip += values[start + size + j] * direction[j]; }
      return share * model + (1 - share) * clip;
    };
    out.fill(along(this.mean, 0));
    for (let k = 0; k < this.steps.length; k++) {
      const factor = this.steps[k] * along(this.basis, 2 * size * k), start = k * this.count;
      for (let i = 0; i < this.count; i++) out[i] += factor * this.coefficients[start + i];
    }
    return out;
  }
  ratio(text, isBase = this.isBase(text)) { return isBase ? this.words.base_ratio : this.words.novel_ratio; }
  // Fit of every place to a phrase: the best of its synonyms.
  heat(texts, bases = texts.map((text) => this.isBase(text))) {
    const all = texts.map((text, i) => this.cosines(text, this.ratio(text, bases[i])));
    return all[0].map((_, i) => Math.max(...all.map((values) => values[i])));
  }
  // The best of several words for every point, and how sure that is; -1 where no word was learned.
  label(groups, rowOf) {
    const learned = groups.map((group) => group.filter((text) => this.wording.isLearned(text)));
    const texts = learned.flat(), owner = learned.flatMap((group, i) => group.map(() => i)), isBase = texts.map((text) => this.isBase(text));
    const labels = new Int16Array(rowOf.length).fill(-1), sureness = new Float32Array(rowOf.length);
    if (!texts.length) return { labels, sureness };
    const { best, sure } = this.parts ? this.byRegion(texts, isBase) : this.alone(texts, isBase);
    for (let i = 0; i < rowOf.length; i++) {
      let at = rowOf[i];
      if (this.parts) at = best[this.part[i]] < 0 ? this.placePart[at] : this.part[i]; // the nearest where no view shows the region
      if (best[at] >= 0) labels[i] = owner[best[at]];
      sureness[i] = sure[at];
    }
    return { labels, sureness };
  }
  // Calls `use` with every place: log scores of the texts before the gate, its probability of base, CLIP's log odds of novel.
  each(texts, isBase, use) {
    const model = texts.map((text) => this.cosines(text, 1)), clip = texts.map((text) => this.cosines(text, 0)), { temperature, gate } = this.words;
    const ratios = texts.map((text, t) => this.ratio(text, isBase[t])), mixed = isMixed(isBase);
    for (let i = 0; i < this.count; i++) {
      const a = normal(model.map((values) => temperature * values[i])), b = normal(clip.map((values) => temperature * values[i]));
      const odds = mixed && this.covered[i] ? novelOdds(b, isBase) : 0;
      use(i, texts.map((_, t) => ratios[t] * a[t] + (1 - ratios[t]) * b[t]), gate === "clip" && mixed ? weigh(clipAlone(isBase), 0, odds) : this.base[i], odds);
    }
  }
  gated(scores, base, isBase) {
    const { gate } = this.words;
    if (gate === "none" || !isMixed(isBase)) return scores;
    return gate === "hard" ? scores.map((score, t) => (isBase[t] === base > 0.5 ? score : -3e38)) : softly(scores, base, isBase);
  }
  // Every place for itself.
  alone(texts, isBase) {
    const best = new Int16Array(this.count), sure = new Float32Array(this.count), { calibration } = this.words;
    this.each(texts, isBase, (i, scores, base) => {
      scores = this.gated(scores, base, isBase);
      best[i] = largest(scores);
      sure[i] = Math.exp(normal(normal(scores).map((score) => score / calibration))[best[i]]);
    });
    return { best, sure };
  }
  // Places of a region together, as region_labels.py: by the parts of the cloud that no division divides.
  byRegion(texts, isBase) {
    const { gate, region_gate, gate_weights, calibration } = this.words, width = texts.length, parts = this.parts, gated = region_gate && isMixed(isBase);
    const votes = new Float64Array(parts * width), evidence = new Float64Array(parts * 4), shares = new Float64Array(parts * width);
    this.each(texts, isBase, (i, scores, base, odds) => {
      const part = this.placePart[i], views = this.views[i];
      normal(gated ? softly(scores, 0.5, isBase) : this.gated(scores, base, isBase)).forEach((score, t) => { votes[part * width + t] += views * Math.exp(score); });
      [this.base[i], 1, odds, this.covered[i]].forEach((value, k) => { evidence[part * 4 + k] += views * value; });
    });
    const weights = gate === "clip" ? clipAlone(isBase) : gate_weights;
    for (const region of this.divisions) {
      const count = region.reduce((most, each) => Math.max(most, each), 0) + 1, sums = grouped(region, votes, width, count), seen = grouped(region, evidence, 4, count);
      for (let r = 0; r < count; r++) {
        const [base, bases, odds, covered] = seen.subarray(4 * r, 4 * r + 4), own = sums.subarray(r * width, (r + 1) * width);
        if (gated) {
          const head = bases > 0 ? Math.min(1 - 1e-4, Math.max(1e-4, base / bases)) : 0.5;
          const known = bases > 0 ? weigh(weights, Math.log(head / (1 - head)), covered > 0 ? odds / covered : 0) : 0.5;
          own.forEach((value, t) => { own[t] = value * (isBase[t] ? known : 1 - known); });
        }
        const all = own.reduce((sum, value) => sum + value, 0);
        if (all > 0) own.forEach((value, t) => { own[t] = value / all; });
      }
      region.forEach((r, part) => { for (let t = 0; t < width; t++) shares[part * width + t] += sums[r * width + t]; });
    }
    const best = new Int16Array(parts).fill(-1), sure = new Float32Array(parts);
    for (let part = 0; part < parts; part++) {
      const own = shares.subarray(part * width, (part + 1) * width), top = largest(own);
      if (!(own[top] > 0)) continue;
      best[part] = top;
      sure[part] = calibration === 1 ? own[top] / this.divisions.length : 1 / own.reduce((sum, value) => sum + (value / own[top]) ** (1 / calibration), 0);
    }
    return { best, sure };
  }
}
const isMixed = (isBase) => isBase.some(Boolean) && !isBase.every(Boolean);
function largest(values) {
  let best = 0;
  for (let t = 1; t < values.length; t++) if (values[t] > values[best]) best = t;
  return best;
}
// Log probabilities.
function normal(values) {
  const most = Math.max(...values), all = most + Math.log(values.reduce((sum, v) => sum + Math.exp(v - most), 0));
  return values.map((v) => v - all);
}
function softly(scores, base, isBase) {
  const among = [true, false].map((kind) => normal(scores.map((score, t) => (isBase[t] === kind ? score : -Infinity))));
  const rest = [base, 1 - base].map((share) => Math.log(Math.max(1.2e-38, share)));
  return scores.map((_, t) => (isBase[t] ? among[0][t] + rest[0] : among[1][t] + rest[1]));
}
function novelOdds(scores, isBase) {
  const [base, novel] = [true, false].map((kind) => scores.reduce((sum, score, t) => sum + (isBase[t] === kind ? Math.exp(score) : 0), 0));
  return Math.min(50, Math.max(-50, Math.log(Math.max(1.2e-38, novel)) - Math.log(Math.max(1.2e-38, base))));
}
// Weights of head and CLIP and a constant (gate_weights.py), and the probability of base that they give.
const clipAlone = (isBase) => [0, -1, Math.log(isBase.filter((each) => !each).length / isBase.filter(Boolean).length) + 0.75];
const weigh = ([head, clip, bias], logit, odds) => 1 / (1 + Math.exp(-Math.min(20, Math.max(-20, head * logit + clip * odds + bias))));
// Sums of rows by group.
function grouped(group, rows, width, count) {
  const sums = new Float64Array(count * width);
  group.forEach((g, i) => { for (let t = 0; t < width; t++) sums[g * width + t] += rows[i * width + t]; });
  return sums;
}
