#include "text/jinja.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/files.h"
#include "support/golden.h"

namespace llava {
namespace {

std::string render(const std::string& source, const OrderedJson& variables = OrderedJson::object()) {
  return JinjaTemplate(source).render(variables).text;
}

/// The error of compiling or rendering.
Error error_of(const std::string& source, const OrderedJson& variables = OrderedJson::object(),
               const JinjaLimits& limits = {}) {
  try {
    JinjaTemplate(source, limits).render(variables);
  } catch (const Error& e) {
    return e;
  }
  ADD_FAILURE() << "no error: " << source;
  return Error(ErrorKind::kInternal, "");
}

struct Case {
  const char* source;
  const char* expected;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.source; }

class JinjaExpression : public testing::TestWithParam<Case> {};

const OrderedJson& variables() {
  static const OrderedJson kVariables = OrderedJson::parse(R"({
    "s": "  Hello, World  ", "t": "Três — três", "n": 5, "x": 2.5, "yes": true, "nothing": null,
    "list": [3, 1, 2], "words": ["b", "A", "c"], "dict": {"b": 1, "a": {"k": [10, 20]}},
    "messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Q"}]},
                 {"role": "assistant", "content": "A"}]})");
  return kVariables;
}

TEST_P(JinjaExpression, IsAsPythonHasIt) {
  EXPECT_EQ(render(GetParam().source, variables()), GetParam().expected);
}

INSTANTIATE_TEST_SUITE_P(
    Arithmetic, JinjaExpression,
    testing::Values(Case{"{{ 1 + 2 * 3 }}", "7"}, Case{"{{ (1 + 2) * 3 }}", "9"},
                    Case{"{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }}", "3 -4 2"},
                    Case{"{{ 7 / 2 }} {{ 4 / 2 }}", "3.5 2.0"},
                    Case{"{{ 2 ** 10 }} {{ 2 ** -1 }}", "1024 0.5"}, Case{"{{ -n + 1 }}", "-4"},
                    Case{"{{ x * 2 }} {{ n * x }}", "5.0 12.5"}, Case{"{{ 'ab' * 3 }}", "ababab"},
                    Case{"{{ [1] + [2] }}", "[1, 2]"}, Case{"{{ 1 ~ 'a' ~ none ~ true }}", "1aNoneTrue"},
                    Case{"{{ 1e3 }} {{ 1_000 }}", "1000.0 1000"}, Case{"{{ 'a' 'b' }}", "ab"},
                    Case{"{{ 1 - -1 }}", "2"}, Case{"{{ +n }}", "5"}));

INSTANTIATE_TEST_SUITE_P(
    Logic, JinjaExpression,
    testing::Values(Case{"{{ 1 < 2 <= 2 != 3 }}", "True"}, Case{"{{ not yes or n == 5 and none }}", "None"},
                    Case{"{{ '' or 'x' }}", "x"},
                    Case{"{{ 'ell' in s }} {{ 3 not in list }} {{ 'a' in dict }}", "True False True"},
                    Case{"{{ 'a' if yes else 'b' }}", "a"}, Case{"[{{ 'a' if not yes }}]", "[]"},
                    Case{"{{ true == 1 }} {{ 'a' < 'b' }} {{ [1,2] == [1,2] }}", "True True True"},
                    Case{"{{ missing == none }} {{ missing is undefined }} [{{ missing }}]",
                         "False True []"},
                    Case{"{{ n is odd }} {{ n is not even }} {{ s is string }} {{ dict is mapping }} {{ "
                         "list is sequence }}",
                         "True True True True True"},
                    Case{"{{ nothing is none }} {{ n is number }} {{ x is float }} {{ yes is boolean }} {{ "
                         "missing is defined }}",
                         "True True True True False"},
                    Case{"{{ n is divisibleby 5 }} {{ 'a' is in ['a'] }} {{ n is eq 5 }} {{ n is gt(4) }}",
                         "True True True True"},
                    Case{"{{ list is iterable and dict is iterable }} {{ n is iterable }}", "True False"}));

INSTANTIATE_TEST_SUITE_P(
    Access, JinjaExpression,
    testing::Values(Case{"{{ dict.a.k[1] }} {{ dict['a']['k'][-1] }} {{ dict.a.k.0 }}", "20 20 10"},
                    Case{"[{{ dict.zz }}] [{{ list[9] }}]", "[] []"},
                    Case{"{{ list[1:] }} {{ list[::-1] }} {{ list[:-1] }} {{ list[-2:] }}",
                         "[1, 2] [2, 1, 3] [3, 1] [1, 2]"},
                    Case{"{{ t[:4] }} {{ t[-4:] }} {{ t[3] }} {{ t | length }}", "Três três s 11"},
                    Case{"{{ 'abc'[::2] }} {{ 'abc'[5:] }}", "ac "},
                    Case{"{{ messages[0].content[1]['text'] }}", "Q"},
                    Case{"{{ {'a': 1, 'b': [true]}.b }}", "[True]"},
                    Case{"{{ {'a': 1}['a'] }}{{ {} }}", "1{}"}));

INSTANTIATE_TEST_SUITE_P(
    Filters, JinjaExpression,
    testing::Values(
        Case{"{{ s | trim }}|{{ s.strip() }}|{{ s.lstrip() }}|{{ s.rstrip() }}|",
             "Hello, World|Hello, World|Hello, World  |  Hello, World|"},
        Case{"{{ 'xxaxx'.strip('x') }} {{ 'xya' | trim('yx') }}", "a a"},
        Case{"{{ 'aé' | upper }} {{ 'ÀB' | lower }}", "AÉ àb"},
        Case{"{{ 'hello wORLD' | title }} {{ 'hELLO' | capitalize }} {{ 'user'.upper() }}",
             "Hello World Hello USER"},
        Case{"{{ list | join('-') }} {{ ['a','b'] | join }} {{ '-'.join(['a', 'b']) }}", "3-1-2 ab a-b"},
        Case{"{{ missing | default('d') }} {{ '' | default('d', true) }} {{ nothing | d('e') }}",
             "d d None"},
        Case{"{{ list | first }} {{ list | last }} {{ 'abc' | first }}", "3 2 a"},
        Case{"{{ 'a.b.c' | replace('.', '-') }} {{ 'aaa'.replace('a', 'b', 2) }}", "a-b-c bba"},
        Case{"{{ 'ab' | list }} {{ dict | list }}", "['a', 'b'] ['b', 'a']"},
        Case{"{{ list | sort }} {{ words | sort | join }} {{ list | sort(reverse=true) }}",
             "[1, 2, 3] Abc [3, 2, 1]"},
        Case{"{{ list | map('string') | join(',') }} {{ messages | map(attribute='role') | list }}",
             "3,1,2 ['user', 'assistant']"},
        Case{"{{ messages[0].content | selectattr('type', 'equalto', 'text') | map(attribute='text') | "
             "first }}",
             "Q"},
        Case{"{{ messages | rejectattr('role', '==', 'user') | list | length }} {{ list | select('odd') | "
             "list }} {{ list | reject('odd') | list }}",
             "1 [3, 1] [2]"},
        Case{"{{ messages | selectattr('role') | list | length }}", "2"},
        Case{"{% for k, v in dict | items %}{{ k }}{{ v }}{% endfor %}", "b1a{'k': [10, 20]}"},
        Case{"{{ dict | dictsort | first | first }} {{ dict.items() | list | length }} {{ dict.keys() | "
             "join }} {{ dict.get('z', 7) }} {{ dict.get('z') }}",
             "a 2 ba 7 None"},
        Case{"{{ dict | tojson }}", R"({"b": 1, "a": {"k": [10, 20]}})"},
        Case{"{{ t | tojson }} {{ '<a>' | tojson }} {{ nothing | tojson }} {{ x | tojson }}",
             R"("Três — três" "<a>" null 2.5)"},
        Case{"{{ {'a': [1]} | tojson(indent=2) }}", "{\n  \"a\": [\n    1\n  ]\n}"},
        Case{"{{ list | sum }} {{ list | min }} {{ list | max }} {{ -3 | abs }}", "6 1 3 3"},
        Case{"{{ '12' | int + 1 }} {{ 'x' | int }} {{ '1.5' | float }} {{ 2.6 | round }} {{ 2.6 | int }}",
             "13 0 1.5 3.0 2"},
        Case{"{{ 'abc' | reverse }} {{ [1,1,2] | unique | list }} {{ '<&>' | e }}",
             "cba [1, 2] &lt;&amp;&gt;"},
        Case{"{{ 'a\\nb\\n\\nc' | indent(2) }}", "a\n  b\n\n  c"},
        Case{"{{ [1, 'a', none] | string }}", "[1, 'a', None]"}));

INSTANTIATE_TEST_SUITE_P(
    Methods, JinjaExpression,
    testing::Values(Case{"{{ 'a b  c'.split() }} {{ 'a,b,,c'.split(',') }} {{ 'a,b,c'.split(',', 1) }}",
                         "['a', 'b', 'c'] ['a', 'b', '', 'c'] ['a', 'b,c']"},
                    Case{"{{ 'x</think>y</think>z'.split('</think>')[-1] }} {{ 'a.b.c'.rsplit('.', 1) }}",
                         "z ['a.b', 'c']"},
                    Case{"{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'bc')) }} {{ "
                         "'abc'.find('c') }} {{ 'abc'.find('z') }}",
                         "True True 2 -1"},
                    Case{"{{ 'aXbX'.count('X') }} {{ '12'.isdigit() }} {{ 'abc'.removeprefix('a') }} {{ "
                         "'a\\nb'.splitlines() }}",
                         "2 True bc ['a', 'b']"},
                    Case{"{{ [5, 6].index(6) }} {{ dict.values() | list | length }}", "1 2"}));

INSTANTIATE_TEST_SUITE_P(
    Statements, JinjaExpression,
    testing::Values(
        Case{"{% for i in list %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ "
             "loop.length }} {% endfor %}",
             "10TrueFalse3 21FalseFalse3 32FalseTrue3 "},
        Case{"{% for i in list %}{{ loop.previtem }}<{{ i }}>{{ loop.nextitem }}{{ loop.revindex }}{{ "
             "loop.cycle('a', 'b') }};{% endfor %}",
             "<3>13a;3<1>22b;1<2>1a;"},
        Case{"{% for i in [] %}x{% else %}empty{% endfor %}", "empty"},
        Case{"{% for i in list if i > 1 %}{{ i }}{{ loop.index }} {% endfor %}", "31 22 "},
        Case{"{% for k, v in dict.items() %}{{ k }}{% if not loop.last %},{% endif %}{% endfor %}", "b,a"},
        Case{"{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% "
             "endif %}{{ i }}{% endfor %}",
             "013"},
        Case{"{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}", "21"},
        Case{"{% set ns = namespace(found=false, n=0) %}{% for i in list %}{% set ns.n = ns.n + i %}{% set "
             "ns.found = true %}{% endfor %}{{ ns.n }}{{ ns.found }}",
             "6True"},
        Case{"{% if n > 9 %}a{% elif n > 4 %}b{% else %}c{% endif %}", "b"},
        Case{"{% if yes %}{% set z = 3 %}{% endif %}{{ z }}", "3"},
        Case{"{% set a, b = 1, 2 %}{{ b }}{{ a }}", "21"},
        Case{"{% set block %}x{{ n }}{% endset %}[{{ block }}]", "[x5]"},
        Case{"{% macro m(a, b='d') %}{{ a }}{{ b }}{{ n }}{% endmacro %}{{ m('x') }} {{ m('x', b='y') }}",
             "xd5 xy5"},
        Case{"{% raw %}{{ x }}{% endraw %}", "{{ x }}"}, Case{"a{# c #}b", "ab"},
        Case{"{{ range(3) | list }} {{ range(1, 6, 2) | list }} {{ range(3, 0, -1) | list }}",
             "[0, 1, 2] [1, 3, 5] [3, 2, 1]"},
        Case{"{% for c in 'aé' %}{{ c }}.{% endfor %}{% for c in missing %}x{% endfor %}", "a.é."},
        Case{"{{ '{{' }} {{ \"%}\" }} {{ '\\u00e9\\x41\\n' }}", "{{ %} éA\n"}));

INSTANTIATE_TEST_SUITE_P(WhiteSpace, JinjaExpression,
                         testing::Values(Case{"a\n  {% if yes %}\nb\n  {% endif %}\nc", "a\nb\nc"},
                                         Case{"a  {{- n -}}  b", "a5b"},
                                         Case{"a \n {%- if yes -%} \n b{% endif %}", "ab"},
                                         Case{"a\n  {%+ if yes %}b{% endif +%}\nc", "a\n  b\nc"},
                                         Case{"x {% if yes %}\ny{% endif %}", "x y"},
                                         Case{"  {# c #}\nx", "x"}, Case{"a\n", "a"}, Case{"a\n\n", "a\n"},
                                         Case{"{{ n }}\nb", "5\nb"}, Case{"a\r\nb", "a\nb"}));

TEST(Jinja, VariablesShadowFunctions) {
  EXPECT_EQ(render("{{ dict(a=1).a }}"), "1");
  EXPECT_EQ(error_of("{{ dict(a=1).a }}", variables()).kind(), ErrorKind::kFormat);
}

TEST(Jinja, GenerationBlocksAreReported) {
  const JinjaOutput out =
      JinjaTemplate("Q{% generation %}answer{% endgeneration %}.{% generation %}{% endgeneration %}")
          .render({{"a", 1}});
  EXPECT_EQ(out.text, "Qanswer.");
  EXPECT_EQ(out.generations, (std::vector<TextRange>{{1, 7}}));
}

TEST(Jinja, StrftimeNowWritesTheDate) {
  EXPECT_EQ(render("{{ strftime_now('%Y') | length }}"), "4");
  EXPECT_EQ(render("[{{ strftime_now('') }}]"), "[]");
}

TEST(Jinja, RaiseExceptionIsAnInputErrorWithTheLine) {
  const Error e = error_of("a\n\n{{ raise_exception('Roles must alternate') }}");
  EXPECT_EQ(e.kind(), ErrorKind::kInput);
  EXPECT_EQ(std::string(e.what()), "chat template, line 3: Roles must alternate");
}

TEST(Jinja, ErrorsNameTheLine) {
  for (const char* source : {"\n{{ 1 +",
                             "\n{% if x %}a",
                             "\n{% for %}",
                             "\n{{ a b }}",
                             "\n{{ 'a }}",
                             "\n{# x",
                             "\n{% raw %}x",
                             "\n{{ 1 / 0 }}",
                             "\n{{ missing.x }}",
                             "\n{{ missing + 'a' }}",
                             "\n{{ 'a' + 1 }}",
                             "\n{{ 'a' | nofilter }}",
                             "\n{{ 1 is notest }}",
                             "\n{{ nofunction() }}",
                             "\n{{ 'a'.nomethod() }}",
                             "\n{% break %}",
                             "\n{% endif %}",
                             "\n{% set x.y = 1 %}",
                             "\n{{ [1][::0] }}",
                             "\n{{ {1: 2} }}",
                             "\n{% set a, b = [1] %}",
                             "\n{{ 1 < 'a' }}",
                             "\n{{ 9223372036854775807 + 1 }}",
                             "\n{{ '\\uD800' }}",
                             "\n{{ missing | tojson }}",
                             "\n{{ x[] }}",
                             "\n{{ ? }}",
                             "\n{{ f(a=1, 2) }}",
                             "\n{{ 'a'.split('') }}",
                             "\n{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}",
                             "\n{{ 5 | length }}",
                             "\n{{ [] | nope }}",
                             "\n{{ loop.cycle() }}",
                             "\n{% unknown %}"}) {
    const Error e = error_of(source);
    EXPECT_EQ(e.kind(), ErrorKind::kFormat) << source << ": " << e.what();
    EXPECT_TRUE(std::string(e.what()).starts_with("chat template, line 2: ")) << source << ": " << e.what();
  }
}

TEST(Jinja, StatementsOutsideTheDialectAreUnsupported) {
  for (const char* source : {"{% include 'x' %}", "{% extends 'x' %}", "{% call m() %}{% endcall %}",
                             "{% for x in y recursive %}{% endfor %}"})
    EXPECT_EQ(error_of(source).kind(), ErrorKind::kUnsupported) << source;
}

TEST(Jinja, HostileTemplatesMeetALimit) {
  const std::string open(5000, '('), brackets(5000, '['), minus(5000, '-');
  std::string sums = "{{ 1";
  for (int i = 0; i < 5000; ++i) sums += "+1";
  std::string ifs;
  for (int i = 0; i < 5000; ++i) ifs += "{% if 1 %}";
  for (const std::string& source :
       {"{{ " + open + "1" + std::string(5000, ')') + " }}",
        "{{ " + brackets + std::string(5000, ']') + " }}", "{{ " + minus + "1 }}", sums + " }}", ifs}) {
    const Error e = error_of(source);
    EXPECT_NE(std::string(e.what()).find("nested deeper"), std::string::npos) << e.what();
  }
  for (const char* source :
       {"{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(s='aaaaaaaaaaaaaaaa') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s "
        "%}{% endfor %}",
        "{% set ns = namespace(s=[1, 2]) %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor "
        "%}",
        "{% set ns = namespace(s=[]) %}{% for i in range(9999) %}{% set ns.s = [ns.s] %}{% endfor %}",
        "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = [ns.s, ns.s] %}{% endfor "
        "%}{{ ns.s }}",
        "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = [ns.s, ns.s] %}{% endfor "
        "%}{{ ns.s == ns.s }}",
        "{{ 'a' * 4000000000 }}", "{{ range(1000000000) }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"}) {
    EXPECT_EQ(error_of(source).kind(), ErrorKind::kResource) << source;
  }
  EXPECT_EQ(error_of("{{ 'abcdefgh' }}", {{"a", 1}}, {.output_bytes = 4}).kind(), ErrorKind::kResource);
  EXPECT_EQ(error_of("{{ 'abcdefgh' }}", {{"a", 1}}, {.source_bytes = 4}).kind(), ErrorKind::kResource);
  EXPECT_EQ(error_of("{% set ns = namespace() %}{% set ns.me = ns %}").kind(), ErrorKind::kUnsupported);
}

TEST(Jinja, PublishedTemplatesRenderByteEqual) {
  LLAVA_GOLDEN_OR_SKIP(path, "chat_templates.json");
  const OrderedJson golden = OrderedJson::parse(read_file(path));
  std::size_t cases = 0;
  for (const auto& [name, checkpoint] : golden.items()) {
    const JinjaTemplate jinja(checkpoint["template"].get<std::string>());
    for (const OrderedJson& c : checkpoint["cases"]) {
      const OrderedJson given = {{"messages", c["messages"]},
                                 {"add_generation_prompt", c["add_generation_prompt"]},
                                 {"bos_token", name == "llama3" ? "<|begin_of_text|>" : "<s>"},
                                 {"eos_token", "</s>"}};
      EXPECT_EQ(jinja.render(given).text, c["text"]) << name << " " << c["name"];
      ++cases;
    }
  }
  EXPECT_GT(cases, 20U);
}

}  // namespace
}  // namespace llava
