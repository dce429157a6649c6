// The endless sheet: a canvas that shows the rows of a seed's images which the scroll bar stands at.
import { INDEX_END } from "./noise.js";
import { bitsOf, grid, inks, tileSize } from "./pictures.js";

const CHUNK_PIXELS = 2 ** 18; // of images that are asked for together
const MOST_CHUNKS = 256; // that are kept
const AT_ONCE = 4; // requests
const SPAN = 4_000_000; // CSS pixels that the scroll bar covers; beyond, it is moved under the sheet
const STRIP = 16; // images in a row of a chunk's picture

export class Sheet {
  /** `load(request, signal)`: packed bits. `says`: {moved(index), chosen(index, isOpened), loaded(), failed(error)}. */
  constructor(scroller, load, says) {
    Object.assign(this, { scroller, load, says, chunks: new Map(), cursor: null, size: 2, top: 0n, base: 0n });
    this.spacer = scroller.querySelector(".spacer");
    this.canvas = scroller.querySelector("canvas");
    this.context = this.canvas.getContext("2d");
    scroller.addEventListener("scroll", () => this.scrolled());
    scroller.addEventListener("keydown", (event) => this.pressed(event));
    this.canvas.addEventListener("click", (event) => this.clicked(event));
    new ResizeObserver(() => this.resize()).observe(scroller);
  }

  /** Shows images of a model and a seed; `labels`: of these classes. */
  show(model, seed, labels, index) {
    for (const chunk of this.chunks.values()) chunk.abort.abort();
    this.chunks.clear();
    Object.assign(this, { model, seed, labels });
    const fitting = 2 ** Math.floor(Math.log2(CHUNK_PIXELS / model.pixels));
    this.chunkImages = Math.min(Math.max(fitting, STRIP), 256, model.mostImages);
    this.resize(index);
  }

  /** Forgets what was asked for and asks again. */
  reload() {
    if (this.model) this.show(this.model, this.seed, this.labels, this.top);
  }

  zoom(step) {
    this.size = Math.min(Math.max(this.size + step, 0), 5);
    this.resize();
  }

  /** Lays the cells out anew, and keeps the image that is at the top. */
  resize(index = this.top) {
    if (!this.model) return;
    const ratio = devicePixelRatio;
    const [width, height] = tileSize(this.model);
    const target = [22, 34, 56, 84, 140, 224][this.size] * ratio;
    const scale = target / Math.max(width, height);
    this.scale = scale < 1 ? scale : Math.round(scale); // whole pixels, where there are enough
    this.gap = Math.round(6 * ratio);
    this.cell = [width, height].map((side) => Math.max(1, Math.round(side * this.scale)));
    this.pitch = this.cell.map((side) => side + this.gap);
    this.canvas.width = Math.floor(this.scroller.clientWidth * ratio);
    this.canvas.height = Math.floor(this.scroller.clientHeight * ratio);
    this.canvas.style.height = `${this.scroller.clientHeight}px`;
    this.columns = Math.max(1, Math.floor((this.canvas.width - this.gap) / this.pitch[0]));
    this.left = Math.floor((this.canvas.width - this.columns * this.pitch[0] + this.gap) / 2);
    this.rowHeight = this.pitch[1] / ratio; // in CSS pixels
    this.rows = (INDEX_END + BigInt(this.columns) - 1n) / BigInt(this.columns);
    this.jump(index);
    this.drawNow(); // at once: a canvas of a new size is empty
  }

  /** Scrolls until an image is in the first row. */
  jump(index) {
    this.top = index < 0n ? 0n : index >= INDEX_END ? INDEX_END - 1n : index;
    const row = this.top / BigInt(this.columns);
    const span = BigInt(Math.floor(SPAN / this.rowHeight));
    const last = this.rows > span ? this.rows - span : 0n;
    this.base = row < span / 2n ? 0n : row - span / 2n > last ? last : row - span / 2n;
    const rows = Number(this.rows - this.base < span ? this.rows - this.base : span);
    this.spacer.style.height = `${rows * this.rowHeight + this.gap / devicePixelRatio}px`;
    this.scroller.scrollTop = Number(row - this.base) * this.rowHeight;
    this.draw();
  }

  scrolled() {
    if (!this.model) return;
    const top = this.scroller.scrollTop;
    const { row } = this.position();
    if (row !== this.top / BigInt(this.columns)) {
      this.top = row * BigInt(this.columns);
      this.says.moved(this.top);
      const below = this.spacer.offsetHeight - this.scroller.clientHeight - top;
      const isNearEnd = below < SPAN / 8 && this.base + BigInt(Math.floor(SPAN / this.rowHeight)) < this.rows;
      if ((top < SPAN / 8 && this.base) || isNearEnd) return this.jump(this.top);
    }
    this.draw();
  }

  /** The first row that is seen, and how many of its pixels are above the canvas. */
  position() {
    const y = Math.round(this.scroller.scrollTop * devicePixelRatio);
    return { row: this.base + BigInt(Math.floor(y / this.pitch[1])), offset: y % this.pitch[1] };
  }

  draw() {
    this.canvas.dataset.missing = "unknown";
    this.pending ??= requestAnimationFrame(() => {
      this.pending = null;
      this.drawNow();
    });
  }

  drawNow() {
    const { context, canvas, columns, scale, gap, left, pitch } = this;
    const { row, offset } = this.position();
    const first = row * BigInt(columns);
    const rowCount = Math.ceil((canvas.height + offset) / pitch[1]);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingEnabled = scale < 1;
    const start = first - (first % BigInt(this.chunkImages));
    const colours = getComputedStyle(document.documentElement);
    const wanted = new Set();
    let missing = 0;
    for (let cell = 0; cell < rowCount * columns; cell++) {
      const place = Number(first - start) + cell;
      const index = start + BigInt(place);
      if (index >= INDEX_END) break;
      const inside = place % this.chunkImages;
      const chunk = this.chunk(index - BigInt(inside), wanted);
      const [x, y] = [left + (cell % columns) * pitch[0], gap + Math.floor(cell / columns) * pitch[1] - offset];
      this.drawImage(chunk, inside, x, y, colours);
      if (index === this.cursor) this.drawFrame(x, y, colours);
      missing += chunk.bits ? 0 : 1;
    }
    this.view = { first, offset };
    this.forget(wanted);
    this.fetchMore(wanted);
    Object.assign(canvas.dataset, { first, columns, scale, gap, left, offset, missing, shape: this.model.shape });
  }

  drawImage(chunk, inside, x, y, colours) {
    if (chunk.bits) {
      const [width, height] = tileSize(this.model);
      chunk.picture ??= this.picture(chunk);
      const from = [(inside % STRIP) * width, Math.floor(inside / STRIP) * height];
      this.context.drawImage(chunk.picture, ...from, width, height, x, y, ...this.cell);
    } else {
      this.context.fillStyle = colours.getPropertyValue("--missing");
      this.context.fillRect(x, y, ...this.cell);
    }
  }

  drawFrame(x, y, colours) {
    const { context, gap, cell } = this;
    context.strokeStyle = colours.getPropertyValue("--accent");
    context.lineWidth = Math.max(2, gap / 2);
    context.strokeRect(x - gap / 4, y - gap / 4, cell[0] + gap / 2, cell[1] + gap / 2);
  }

  chunk(first, wanted) {
    wanted.add(first);
    if (!this.chunks.has(first)) this.chunks.set(first, { first, abort: new AbortController() });
    return this.chunks.get(first);
  }

  picture({ bits }) {
    return grid(bitsOf(bits, this.model), bits.length / this.model.bytes, this.model, STRIP, 0, inks());
  }

  repaint() {
    for (const chunk of this.chunks.values()) chunk.picture = null;
    if (this.model) this.draw();
  }

  /** Gives up what is asked for and no longer shown, and the oldest of what is kept. */
  forget(wanted) {
    for (const [first, chunk] of this.chunks) {
      if (wanted.has(first) || (chunk.bits && this.chunks.size <= MOST_CHUNKS)) continue;
      chunk.abort.abort();
      this.chunks.delete(first);
    }
  }

  fetchMore(wanted) {
    let running = [...this.chunks.values()].filter((chunk) => chunk.isAsked && !chunk.bits && !chunk.hasFailed).length;
    for (const first of wanted) {
      const chunk = this.chunks.get(first);
      if (chunk.isAsked || running++ >= AT_ONCE) continue;
      chunk.isAsked = true;
      const left = INDEX_END - first;
      const count = left < BigInt(this.chunkImages) ? Number(left) : this.chunkImages;
      const { model, seed, labels } = this;
      this.load({ model, seed, first, count, labels }, chunk.abort.signal).then(
        (bits) => {
          chunk.bits = bits;
          this.draw();
          this.says.loaded();
        },
        (error) => {
          chunk.hasFailed = true;
          if (error.name !== "AbortError") this.says.failed(error);
        },
      );
    }
  }

  clicked({ offsetX, offsetY }) {
    const [x, y] = [offsetX * devicePixelRatio - this.left, offsetY * devicePixelRatio + this.view.offset - this.gap];
    const column = Math.floor(x / this.pitch[0]);
    if (x < 0 || y < 0 || column >= this.columns) return;
    this.choose(this.view.first + BigInt(Math.floor(y / this.pitch[1]) * this.columns + column), true);
  }

  pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.model) return;
    const page = this.columns * Math.max(1, Math.floor(this.canvas.height / this.pitch[1]) - 1);
    const steps = {
      ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns, PageUp: -page, PageDown: page,
    };
    const from = this.cursor ?? this.top - 1n;
    if (event.key in steps) this.choose(from + BigInt(steps[event.key]));
    else if (event.key === "Home") this.choose(0n);
    else if (event.key === "End") this.choose(INDEX_END - 1n);
    else if (event.key === "Enter" || event.key === " ") this.choose(this.cursor ?? this.top, true);
    else if (event.key === "+" || event.key === "-") this.zoom(event.key === "+" ? 1 : -1);
    else return;
    event.preventDefault();
  }

  /** Marks an image, and opens it or lets its words be said. */
  choose(index, isOpened = false) {
    this.cursor = index < 0n ? 0n : index >= INDEX_END ? INDEX_END - 1n : index;
    this.says.chosen(this.cursor, isOpened);
    const row = this.cursor / BigInt(this.columns);
    const whole = BigInt(Math.max(1, Math.floor((this.canvas.height - this.gap) / this.pitch[1])));
    const { row: first, offset } = this.position();
    const top = first + (offset ? 1n : 0n);
    const target = row < top ? row : row >= top + whole ? row - whole + 1n : null;
    if (target !== null) {
      this.jump((target < 0n ? 0n : target) * BigInt(this.columns));
      this.says.moved(this.top);
    }
    this.draw();
  }

  /** The bits of one image, if the sheet has them. */
  bitsOf(index) {
    const first = index - (index % BigInt(this.chunkImages));
    const start = Number(index - first) * this.model.bytes;
    return this.chunks.get(first)?.bits?.subarray(start, start + this.model.bytes) ?? null;
  }
}
