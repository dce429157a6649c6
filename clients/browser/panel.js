// One image large: its probabilities, other draws of its neurons, and the walk to another image.
import { INDEX_END } from "./noise.js";
import { layoutOf } from "./generator.js";
import { bitsOf, countOn, grid, inks } from "./pictures.js";

const DRAWS = 12;
const $ = (id) => document.getElementById(id);

export class Panel {
  /** `infer(model, noise)` gives images and probabilities. `says`: {changed(), failed(error), readIndex(id)}. */
  constructor(infer, says) {
    Object.assign(this, { infer, says, index: null, target: null, step: 0, firstDraw: 0n, latest: {} });
    $("draw-again").onclick = () => {
      this.firstDraw = (this.firstDraw + BigInt(DRAWS)) % (INDEX_END - BigInt(DRAWS));
      this.showDraws();
    };
    $("walk").oninput = () => {
      this.step = Number($("walk").value);
      this.says.changed();
      this.showWalk();
    };
    $("target").onchange = () => {
      this.target = this.says.readIndex("target") ?? this.target;
      this.says.changed();
      this.showWalk();
    };
  }

  /** `bits`: a promise of the image's own. */
  async show(model, seed, labels, index, bits) {
    Object.assign(this, { model, seed, labels, index, firstDraw: index + 1n + BigInt(DRAWS) >= INDEX_END ? 0n : index + 1n });
    this.target ??= index + 1n < INDEX_END ? index + 1n : 0n;
    this.layout = layoutOf(model);
    $("panel").hidden = false;
    $("title").textContent = `Image ${index < 10n ** 12n ? index.toLocaleString("en") : index}`;
    const hasDraws = model.isStochastic || model.innerCount > 0;
    $("draws-section").hidden = !hasDraws;
    $("parts").hidden = !model.parts;
    $("parts").replaceChildren();
    $("facts").textContent = this.labelText(index);
    $("target").value = this.target;
    $("walk").value = this.step;
    this.showProbabilities();
    if (hasDraws) this.showDraws();
    this.showWalk();
    try {
      this.showBits("image", await bits, index);
    } catch (error) {
      this.says.failed(error);
    }
  }

  showBits(id, bits, index) {
    if (index !== this.index) return;
    this.draw(id, bitsOf(bits, this.model));
    const on = countOn(bits);
    $("facts").textContent = [this.labelText(index), `${on} of ${this.model.pixels} pixels are on`].filter(Boolean).join(" · ");
    $(id).setAttribute("aria-label", `The image, ${on} of ${this.model.pixels} pixels on`);
  }

  noise(index) {
    return this.layout.draw(this.seed, index, 1, this.labels);
  }

  labelText(index) {
    if (!this.model.classes.length) return "";
    return `class ${this.model.classes[this.noise(index).labels[0]]}`;
  }

  async showProbabilities() {
    const found = await this.ask("probabilities", this.noise(this.index));
    if (!found) return;
    this.draw("probabilities", (_, i) => found.probabilities[i]);
    $("probabilities").setAttribute("aria-label", "The probability of each pixel to be on");
    if (found.gates) this.showParts([...found.gates]);
  }

  /** `gates`: 1 for each part that ran for the image, 0 for each other. */
  showParts(gates) {
    const squares = gates.map((ran, part) => {
      const square = document.createElement("span");
      square.className = ran ? "part ran" : "part";
      square.textContent = part;
      return square;
    });
    $("parts").replaceChildren("parts that ran ", ...squares);
    const ran = gates.flatMap((gate, part) => (gate ? [part] : []));
    $("parts").setAttribute("aria-label", `${ran.length} of ${gates.length} parts ran for it${ran.length ? `: ${ran.join(", ")}` : ""}`);
  }

  /** The same latents with the uniforms of other images. */
  async showDraws() {
    const own = this.noise(this.index);
    const { uniforms, inner } = this.layout.draw(this.seed, this.firstDraw, DRAWS);
    const labels = own.labels && Int32Array.from({ length: DRAWS }, () => own.labels[0]);
    const found = await this.ask("draws", { latents: repeat(own.latents, DRAWS), uniforms, labels, inner });
    if (!found) return;
    this.draw("draws", (image, i) => found.images[image * this.model.pixels + i], DRAWS, 6, 1);
    const last = this.firstDraw + BigInt(DRAWS) - 1n;
    $("draws").setAttribute("aria-label", `${DRAWS} images of the same latents, with the uniforms of images ${this.firstDraw} to ${last}`);
  }

  /** On the great circle between both latents, whose angle passes evenly; uniforms and class stay. */
  async showWalk() {
    const [from, to] = [this.noise(this.index), this.noise(this.target)];
    const found = await this.ask("walked", { ...from, latents: slerp(from.latents, to.latents, this.step / 100) });
    if (!found) return;
    this.draw("walked", (_, i) => found.images[i]);
    this.draw("walked-probabilities", (_, i) => found.probabilities[i]);
    const words = `${this.step} % of the way from image ${this.index} to ${this.target}`;
    $("walked-caption").textContent = `${this.step} %`;
    $("walked").setAttribute("aria-label", words);
    $("walk").setAttribute("aria-valuetext", words);
  }

  /** What the model gives; null where something else was asked for meanwhile. */
  async ask(what, noise) {
    const token = (this.latest[what] = {});
    try {
      const found = await this.infer(this.model, noise);
      return this.latest[what] === token ? found : null;
    } catch (error) {
      this.says.failed(error);
      return null;
    }
  }

  draw(id, value, count = 1, columns = 1, gap = 0) {
    const picture = grid(value, count, this.model, columns, gap, inks());
    const canvas = $(id);
    [canvas.width, canvas.height] = [picture.width, picture.height];
    canvas.getContext("2d").drawImage(picture, 0, 0);
  }
}

function repeat(values, count) {
  const all = new values.constructor(values.length * count);
  for (let i = 0; i < count; i++) all.set(values, i * values.length);
  return all;
}

/** The spherical path between two latents (White 2016). */
export function slerp(start, end, share) {
  const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
  const cosine = dot(start, end) / Math.sqrt(dot(start, start) * dot(end, end));
  const angle = Math.acos(Math.min(1, Math.max(-1, cosine)));
  const isStraight = Math.sin(angle) < 1e-6;
  const weight = (part) => (isStraight ? part : Math.sin(part * angle) / Math.sin(angle));
  const [a, b] = [weight(1 - share), weight(share)];
  return start.map((value, i) => a * value + b * end[i]);
}
