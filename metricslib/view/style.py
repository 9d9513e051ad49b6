"""How the page looks: one style sheet, sent inside the page, with no script, no font and no picture to load.

Light and dark follow the reader's system. Below the width of a tablet each series becomes a small card, with the
names of its values before them.
"""

import base64
import hashlib

__all__ = ["POLICY", "STYLE"]

STYLE = """
:root{color-scheme:light dark;--back:#fcfcfb;--text:#20242a;--dim:#67707b;--faint:#87909a;--line:#e6e8eb;--soft:#f3f4f5;
--link:#1d5fa8;--good:#1a7f4b;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--back:#15181c;--text:#dfe3e8;--dim:#98a1ac;--faint:#78818c;--line:#2a2f36;
--soft:#1d2126;--link:#7fb4ee;--good:#5ac98d;--bad:#ff8a80}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.5rem 1.75rem 3rem;max-width:96rem;background:var(--back);color:var(--text);
font:14px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
h1{margin:0;font-size:1.35rem;font-weight:600}
h2{margin:2rem 0 .5rem;font-size:1rem;font-weight:600}
a{color:var(--link)}
header{display:flex;flex-wrap:wrap;gap:.25rem 1rem;align-items:baseline;justify-content:space-between}
nav a{margin-left:1rem}
dl{display:flex;flex-wrap:wrap;gap:.75rem 2.25rem;margin:1rem 0 0}
h2+dl{margin-top:.5rem}
dl div{min-width:0}
dt{color:var(--dim);font-size:.8125rem}
dd{margin:0;overflow-wrap:anywhere;font-variant-numeric:tabular-nums}
.dim,.note{color:var(--dim)}
.bad{color:var(--bad)}
.good{color:var(--good)}
.note{margin:.5rem 0}
table{width:100%;border-collapse:collapse;font-variant-numeric:tabular-nums}
th{padding:.25rem .5rem;text-align:left;font-weight:500;font-size:.8125rem;line-height:1.25;color:var(--dim);
vertical-align:bottom}
td{padding:.2rem .5rem;border-top:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}
th:first-child,td:first-child{padding-left:0}
th:last-child,td:last-child{padding-right:0}
th.n{text-align:right}
td.n{text-align:right;white-space:nowrap}
td.word{white-space:nowrap}
td.where{min-width:17.5rem}
.series thead{position:sticky;top:0;background:var(--back)}
.series tr.over th{padding-bottom:0;color:var(--faint)}
.series tbody::before{content:"";display:table-row;height:.6rem}
.series tbody tr:hover td{background:var(--soft)}
td.name{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.8125rem;
line-height:1.57;min-width:15rem}
.name i{font-style:normal;color:var(--faint)}
td.kind,td.none{color:var(--dim)}
.section{width:auto}
.section td+td,.section th+th{padding-left:2rem}
.series .from{border-left:1px solid var(--line)}
form{display:flex;flex-wrap:wrap;gap:.5rem;align-items:center;margin:.25rem 0 .75rem}
input,button{font:inherit;color:inherit;background:var(--back);border:1px solid var(--faint);border-radius:4px;
padding:.25rem .5rem}
input{width:20rem;max-width:100%}
button{cursor:pointer;background:var(--soft)}
@media(max-width:72rem){
body{padding:1rem}
h1{width:100%}
nav a:first-child{margin-left:0}
table,tbody,tr,td{display:block}
thead,.series tbody::before{display:none}
tr{padding:.45rem 0;border-top:1px solid var(--line)}
.series tbody{margin-bottom:1.25rem}
td,td.n{display:inline-block;border:0;padding:0 .9rem 0 0;text-align:left;white-space:normal}
td:first-child{display:block;padding:0}
.section td+td{padding-left:0}
td:not(.name)[title]::before{content:attr(title) " ";color:var(--dim)}
.series .from{border:0}
td.where{min-width:0}
td.blank,td:empty{display:none}
}
"""

_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()

POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
"""The Content-Security-Policy of the page: nothing is loaded, nothing runs, and nothing but this style applies."""
