package cli

import (
	"reflect"
	"strings"
	"unicode"

	"github.com/alecthomas/kong"
)

// parseThin is parse for the usual case, by a model of only those flags that are typed: kong takes 20 µs to read the
// tags of one flag, so run's forty would cost a fifteenth of the time in which a sandbox is up. It returns false for
// all that is not usual (help, a fault, subcommands), which parse then looks at with the whole model.
func parseThin(e entry, args []string, settings kong.Resolver) (command, bool) {
	cmd, ok := e.make().(command)
	if !ok {
		return nil, false
	}
	whole := reflect.ValueOf(cmd).Elem()
	fields := typed(whole.Type(), args)
	plain := make([]reflect.StructField, len(fields))
	for i, f := range fields {
		plain[i] = reflect.StructField{Name: f.Name, Type: f.Type, Tag: f.Tag}
	}
	thin := reflect.New(reflect.StructOf(plain))
	k, err := kong.New(&struct{}{}, kong.Name("whisk"), kong.NoDefaultHelp(), kong.Resolvers(settings), kong.DynamicCommand(e.name, "", "", thin.Interface()))
	if err != nil {
		return nil, false
	}
	ordered, help := arrange(k.Model.Children[0], args)
	if help {
		return nil, false
	}
	if _, err := k.Parse(append([]string{e.name}, ordered...)); err != nil {
		return nil, false
	}
	for i, f := range fields {
		whole.FieldByIndex(f.Index).Set(thin.Elem().Field(i))
	}
	return cmd, true
}

// typed are the fields of a command that args may set, with those that have a default and the arguments themselves.
// It may return more than are set, as it takes what follows the flags for flags, too.
func typed(command reflect.Type, args []string) []reflect.StructField {
	long, short := map[string]bool{}, ""
	for _, arg := range args {
		if name, ok := strings.CutPrefix(arg, "--"); ok {
			name, _, _ = strings.Cut(name, "=")
			long[name] = true
		} else if cluster, ok := strings.CutPrefix(arg, "-"); ok {
			short += cluster
		}
	}
	var fields []reflect.StructField
	for _, f := range reflect.VisibleFields(command) {
		if f.Anonymous || !f.IsExported() {
			continue
		}
		_, isArg := f.Tag.Lookup("arg")
		_, hasDefault := f.Tag.Lookup("default")
		letter := f.Tag.Get("short")
		if isArg || hasDefault || long[flagName(f)] || letter != "" && strings.Contains(short, letter) {
			fields = append(fields, f)
		}
	}
	return fields
}

// flagName is the long flag that kong makes of a field.
func flagName(f reflect.StructField) string {
	if name, ok := f.Tag.Lookup("name"); ok {
		return name
	}
	var b strings.Builder
	for i, r := range f.Name {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('-')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
