// SPDX-License-Identifier: EUPL-1.2

// Command health runs a health script of Argo CD over objects, with the interpreter that Argo CD embeds. It reads
// {"script": "...", "objects": [{...}, ...]} and prints [{"status": "...", "message": "..."}, ...].
package main

import (
	"encoding/json"
	"fmt"
	"os"

	lua "github.com/yuin/gopher-lua"
)

type work struct {
	Script  string           `json:"script"`
	Objects []map[string]any `json:"objects"`
}

type health struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var work work
	if err := json.NewDecoder(os.Stdin).Decode(&work); err != nil {
		return err
	}
	answers := make([]health, 0, len(work.Objects))
	for _, object := range work.Objects {
		answer, err := judge(work.Script, object)
		if err != nil {
			return err
		}
		answers = append(answers, answer)
	}
	return json.NewEncoder(os.Stdout).Encode(answers)
}

// judge opens of Lua's libraries only those that Argo CD opens for a health script.
func judge(script string, object map[string]any) (health, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{
		lua.LoadLibName: lua.OpenPackage, lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable,
	} {
		if err := state.CallByParam(lua.P{Fn: state.NewFunction(open), Protect: true}, lua.LString(name)); err != nil {
			return health{}, err
		}
	}
	state.SetGlobal("obj", value(state, object))
	if err := state.DoString(script); err != nil {
		return health{}, err
	}
	table, isTable := state.Get(-1).(*lua.LTable)
	if !isTable {
		return health{}, fmt.Errorf("the script returns %s, not a table", state.Get(-1).Type())
	}
	answer := health{Status: text(table, "status"), Message: text(table, "message")}
	return answer, nil
}

func text(table *lua.LTable, key string) string {
	if text, isString := table.RawGetString(key).(lua.LString); isString {
		return string(text)
	}
	return ""
}

func value(state *lua.LState, from any) lua.LValue {
	switch from := from.(type) {
	case bool:
		return lua.LBool(from)
	case float64:
		return lua.LNumber(from)
	case string:
		return lua.LString(from)
	case []any:
		table := state.NewTable()
		for _, item := range from {
			table.Append(value(state, item))
		}
		return table
	case map[string]any:
		table := state.NewTable()
		for key, item := range from {
			table.RawSetString(key, value(state, item))
		}
		return table
	default:
		return lua.LNil
	}
}
