// Words as typed, and what was meant: the rules and the notes of wording.py.
const WORD = /[\p{L}\p{Nl}\p{No}]+/gu;
const PLURALS = [["ves", "f"], ["ies", "y"], ["es", ""], ["s", ""]];
class Wording {
  constructor(words) { this.learned = words.learned && new Set(words.learned); this.small = new Set(words.small); }
  wordsOf(text) { return text.toLowerCase().match(WORD) || []; }
  unknown(text) { return this.learned ? [...new Set(this.wordsOf(text))].filter((word) => !this.learned.has(word)) : []; }
  isLearned(text) { return !this.learned || this.wordsOf(text).some((word) => this.learned.has(word) && !this.small.has(word)); }
  // Plurals that were never learned become singulars that were.
  singular(query, notes) {
    for (const word of this.unknown(query)) {
      const ends = PLURALS.filter(([end]) => word.endsWith(end) && word.length > end.length + 2);
      const found = ends.map(([end, other]) => word.slice(0, -end.length) + other).find((one) => !this.unknown(one).length);
      if (found === undefined) continue;
      notes.push(`'${word}' is taken as ${found}`);
      query = query.replace(WORD, (each) => (each.toLowerCase() === word ? found : each));
    }
    return query;
  }
  understand(query) {
    const parts = query.split(",").map((part) => part.trim()).filter(Boolean), notes = [], unlearned = [];
    if (parts.length > 1) notes.push(`'${query}' is taken as ${parts.length} queries: ${parts.join(", ")}`);
    const queries = (parts.length ? parts : [""]).map((part) => this.singular(part, notes));
    for (const each of queries) {
      const unknown = this.unknown(each);
      if (!this.isLearned(each)) {
        unlearned.push(each);
        notes.push(`'${each}': this model never learned such words, and finds nothing for them`);
      } else if (unknown.length) notes.push(`'${each}': this model never learned ${unknown.join(", ")}, and goes by the rest`);
    }
    return { queries, notes, unlearned };
  }
}
