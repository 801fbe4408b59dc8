// Draws one map: called with the id of its element; the data are in the element beside it.
(id) => {
  const root = document.getElementById(id);
  const data = JSON.parse(document.getElementById(id + "-data").textContent);
  const bytes = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0)).buffer;
  const xs = new Float32Array(bytes(data.x));
  const ys = new Float32Array(bytes(data.y));
  const groups = new Int32Array(bytes(data.group));
  const members = data.clusters.map(() => []);
  groups.forEach((group, n) => members[group].push(n));

  // Plotly reads tags in names; everything else here goes through textContent.
  const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const webgl = !!document.createElement("canvas").getContext("webgl");
  const size = Math.max(2, Math.min(9, 260 / Math.sqrt(xs.length + 1)));
  const traces = data.clusters.map((cluster, group) => ({
    type: webgl ? "scattergl" : "scatter",
    mode: "markers",
    name: escaped(cluster.name) + " (" + members[group].length + ")",
    x: members[group].map((n) => xs[n]),
    y: members[group].map((n) => ys[n]),
    customdata: members[group],
    marker: { color: cluster.colour, size: size, opacity: 0.75 },
    hoverinfo: "none",
  }));
  const named = data.clusters.map((_, group) => group).filter((group) => data.clusters[group].middle);
  const labels = (visible) =>
    named.map((group) => ({
      x: data.clusters[group].middle[0],
      y: data.clusters[group].middle[1],
      text: escaped(data.clusters[group].name),
      visible: visible(group),
      showarrow: false,
      bgcolor: "rgba(255,255,255,0.75)",
      borderpad: 1,
      font: { size: 12, color: "#18181c" },
    }));
  const axis = { visible: false, zeroline: false };
  const layout = {
    xaxis: axis,
    yaxis: { ...axis, scaleanchor: "x" },
    margin: { l: 0, r: 0, t: 0, b: 0 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "#fff",
    dragmode: "pan",
    hovermode: "closest",
    showlegend: true,
    legend: { itemsizing: "constant", font: { size: 12 }, y: 0.95 },
    modebar: { bgcolor: "rgba(255,255,255,0)", color: "#9a9aa2", activecolor: "#18181c" },
    annotations: labels(() => true),
  };
  const config = { scrollZoom: true, responsive: true, displaylogo: false };

  const card = root.querySelector(".map-card");
  const [picture, name, text, cluster] = ["img", ".map-id", ".map-text", ".map-cluster"].map((part) =>
    card.querySelector(part),
  );
  const show = (n, event) => {
    const thumbnail = data.thumbnails[n];
    picture.hidden = !thumbnail;
    if (thumbnail) picture.src = thumbnail;
    name.textContent = data.ids[n];
    text.textContent = data.texts[n];
    cluster.textContent = data.clusters[groups[n]].name;
    card.hidden = false;
    const place = (at, room, length) => (at + 16 + length > room ? Math.max(0, at - 16 - length) : at + 16) + "px";
    card.style.left = place(event.clientX, window.innerWidth, card.offsetWidth);
    card.style.top = place(event.clientY, window.innerHeight, card.offsetHeight);
  };

  Plotly.newPlot(root.querySelector(".map-plot"), traces, layout, config).then((plot) => {
    plot.on("plotly_hover", (found) => show(found.points[0].customdata, found.event));
    plot.on("plotly_unhover", () => (card.hidden = true));
    // The legend hides points; their names go with them.
    plot.on("plotly_restyle", () =>
      Plotly.relayout(plot, { annotations: labels((group) => (plot.data[group].visible ?? true) === true) }),
    );
  });
}
