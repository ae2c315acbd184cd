#include "report/page.h"

namespace llava {

std::string_view page_style() {
  return R"css(
:root { color-scheme: light dark; --bg: #f6f7f9; --card: #ffffff; --ink: #1b2430; --soft: #667085; --line: #e3e7ed;
  --c0: #2563eb; --c1: #d9480f; --c2: #0f8a5f; --c3: #8b3fd1; --c4: #b7791f; --c5: #0e7490; --bad: #d92d20;
  --mark: #dbeafe; --markink: #1e40af; }
@media (prefers-color-scheme: dark) { :root { --bg: #0f141b; --card: #18202b; --ink: #e6eaf0; --soft: #95a1b3; --line: #2a3544;
  --c0: #6ea8fe; --c1: #ff9b63; --c2: #4cd39b; --c3: #c79bff; --c4: #f2c15f; --c5: #5fd0e0; --bad: #ff7b72;
  --mark: #1e3a66; --markink: #cfe2ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto,
  "DejaVu Sans", sans-serif; }
main { max-width: 1280px; margin: 0 auto; padding: 28px 24px 60px; }
header { display: flex; align-items: baseline; gap: 14px; flex-wrap: wrap; margin-bottom: 18px; }
h1 { font-size: 26px; margin: 0; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 38px 0 12px; }
.state { font-size: 13px; padding: 2px 10px; border-radius: 999px; border: 1px solid var(--line); color: var(--soft); }
.state.done { color: var(--c2); border-color: currentColor; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 12px; }
.tile, .card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
.tile { padding: 12px 16px; }
.tile b { display: block; font-size: 21px; font-weight: 650; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13px; }
.bar { display: flex; gap: 18px; align-items: center; margin: 22px 0 12px; color: var(--soft); font-size: 13px; flex-wrap: wrap; }
.bar input[type=range] { vertical-align: middle; accent-color: var(--c0); width: 160px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 540px), 1fr)); gap: 14px; }
.card { padding: 14px 16px 10px; min-width: 0; position: relative; }
.card h3 { margin: 0; font-size: 15px; font-weight: 600; }
.head { display: flex; align-items: center; gap: 14px; flex-wrap: wrap; min-height: 28px; }
.legend { display: flex; gap: 12px; flex-wrap: wrap; color: var(--soft); font-size: 12.5px; flex: 1; }
.legend i { display: inline-block; width: 14px; height: 3px; border-radius: 2px; margin-right: 5px; vertical-align: middle; }
button { font: inherit; font-size: 12px; color: var(--soft); background: none; border: 1px solid var(--line); border-radius: 7px;
  padding: 1px 9px; cursor: pointer; }
button[aria-pressed=true] { color: var(--card); background: var(--c0); border-color: var(--c0); }
button:focus-visible, summary:focus-visible { outline: 2px solid var(--c0); outline-offset: 2px; }
svg { display: block; width: 100%; height: 230px; overflow: visible; touch-action: none; }
svg text { fill: var(--soft); font-size: 11px; font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--line); } svg .stage { stroke: var(--soft); stroke-dasharray: 3 4; opacity: .6; }
.tip { position: absolute; pointer-events: none; background: var(--ink); color: var(--bg); border-radius: 8px; padding: 6px 10px;
  font-size: 12px; line-height: 1.45; white-space: nowrap; display: none; z-index: 2; font-variant-numeric: tabular-nums; }
.tip i { display: inline-block; width: 8px; height: 8px; border-radius: 50%; margin-right: 6px; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--soft); } th, td { padding: 7px 10px; border-bottom: 1px solid var(--line);
  vertical-align: top; } tr:last-child td { border-bottom: 0; } td { overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
.samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 400px), 1fr)); gap: 14px; }
.sample .images { display: flex; gap: 8px; flex-wrap: wrap; margin: 10px 0; }
.sample img { max-width: 100%; max-height: 200px; border-radius: 8px; display: block; }
.sample .text { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 13.5px; max-height: 320px; overflow-y: auto; }
.sample .masked { color: var(--soft); } .sample .trained { background: var(--mark); color: var(--markink); border-radius: 3px; }
.sample .media { border: 1px solid var(--line); border-radius: 5px; padding: 0 5px; font-size: 12px; color: var(--soft); }
.sample small { color: var(--soft); overflow-wrap: anywhere; }
.answers { margin: 10px 0 4px; border-top: 1px solid var(--line); padding-top: 8px; font-size: 13.5px; }
.answers div { display: grid; grid-template-columns: 84px 1fr; gap: 8px; overflow-wrap: anywhere; }
.answers div span:first-child { color: var(--soft); }
details { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 10px 16px; }
summary { cursor: pointer; font-weight: 600; } pre { overflow-x: auto; font-size: 12.5px; line-height: 1.45; }
.bad { color: var(--bad); } .note { color: var(--soft); font-size: 13.5px; }
)css";
}

}  // namespace llava
