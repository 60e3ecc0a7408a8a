// Draws the charts, lets links leave Airflow's frame, and hands a form to Airflow's API.
"use strict";

const colour = (name) =>
  getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

const percent = (value) => `${(value * 100).toFixed(1)} %`;

function options(spec) {
  const ink = colour("quiet");
  const grid = { color: colour("line") };
  const ticks = { color: ink, maxRotation: 0, autoSkipPadding: 16 };
  const words = (value) => {
    if (spec.percent) return percent(value);
    return value.toLocaleString("en") + (spec.unit ? ` ${spec.unit}` : "");
  };
  const values = {
    beginAtZero: true,
    max: spec.percent ? 1 : spec.most,
    stacked: Boolean(spec.stacked),
    grid,
    ticks: { ...ticks, callback: words },
  };
  const labels = { stacked: Boolean(spec.stacked), grid: { display: false }, ticks };
  return {
    animation: false,
    responsive: true,
    maintainAspectRatio: false,
    indexAxis: spec.across ? "y" : "x",
    interaction: { mode: "index", intersect: false, axis: spec.across ? "y" : "x" },
    scales: spec.across ? { x: values, y: labels } : { x: labels, y: values },
    plugins: {
      legend: {
        display: spec.series.length > 1,
        position: "bottom",
        labels: { color: ink, boxWidth: 12 },
      },
      tooltip: {
        callbacks: {
          label: (at) => `${at.dataset.label}: ${words(spec.across ? at.parsed.x : at.parsed.y)}`,
        },
      },
    },
  };
}

function draw(figure) {
  const spec = JSON.parse(figure.dataset.chart);
  const datasets = spec.series.map((series) => {
    const tone = series.tones
      ? series.tones.map((each) => colour(each))
      : colour(series.tone);
    return {
      label: series.name,
      data: series.values,
      backgroundColor: tone,
      borderColor: tone,
      borderWidth: spec.kind === "line" ? 2 : 0,
      pointRadius: spec.labels.length > 40 ? 0 : 2,
      spanGaps: true,
      maxBarThickness: 28,
    };
  });
  return new Chart(figure.querySelector("canvas"), {
    type: spec.kind,
    data: { labels: spec.labels, datasets },
    options: options(spec),
  });
}

function chartAll() {
  let charts = [];
  const again = () => {
    charts.forEach((chart) => chart.destroy());
    charts = [...document.querySelectorAll("[data-chart]")].map(draw);
  };
  again();
  document.documentElement.addEventListener("themed", again);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
}

// The frame's sandbox lets none of its own links replace Airflow's page; one that stands
// in Airflow's page may.
function leave(event) {
  const link = event.target.closest("a[data-airflow]");
  if (!link || window.parent === window || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  const outside = window.parent.document.createElement("a");
  outside.href = link.href;
  window.parent.document.body.append(outside);
  outside.click();
  outside.remove();
}

// The form is Airflow's: it asks whether this person may trigger the DAG, checks every
// value, and writes down who did it. The page has no route that changes anything.
async function trigger(event) {
  event.preventDefault();
  const form = event.target;
  const said = form.querySelector("output");
  const conf = JSON.parse(form.dataset.conf);
  conf.dry_run = form.elements.dry_run.checked;
  conf.why = form.elements.why.value.trim() || null;
  if (!conf.dry_run && !conf.why) {
    said.textContent = "Say why: it is written down for ever, with your name.";
    form.elements.why.focus();
    return;
  }
  const airflow = document.body.dataset.airflow;
  const dag = encodeURIComponent(form.dataset.dag);
  said.textContent = "Asking Airflow …";
  const answer = await fetch(`${airflow}/api/v2/dags/${dag}/dagRuns`, {
    method: "POST",
    credentials: "same-origin",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ logical_date: null, conf }),
  }).catch(() => null);
  if (!answer || !answer.ok) {
    said.textContent =
      answer && answer.status === 403
        ? "Airflow says that you may not trigger this DAG."
        : "Airflow did not take it. Try its own form, with the values below.";
    return;
  }
  const run = await answer.json();
  const link = document.createElement("a");
  link.dataset.airflow = "";
  link.href = `${airflow}/dags/${dag}/runs/${encodeURIComponent(run.dag_run_id)}`;
  link.textContent = conf.dry_run
    ? "Planned. See the run: its log says what would be put back."
    : "Started. See the run: its log says what was put back and sent.";
  said.replaceChildren(link);
  link.focus();
}

document.addEventListener("click", leave);
document.querySelectorAll("form[data-dag]").forEach((form) => {
  form.addEventListener("submit", trigger);
});
if (window.Chart) chartAll();
