package awstest

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"
)

// wireJSON turns a record of the SDK's types into what awsJson1.1 sends for it:
// members begin with a small letter, absent ones are left out, and times are
// seconds since 1970 with milliseconds. It panics for kinds that no record has.
func wireJSON(v any) any { return wireValue(reflect.ValueOf(v)) }

func wireValue(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Pointer:
		return wireValue(v.Elem())
	case reflect.Struct:
		if t, ok := v.Interface().(time.Time); ok {
			return json.Number(strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', -1, 64))
		}
		members := map[string]any{}
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && !absent(v.Field(i)) {
				members[wireName(f.Name)] = wireValue(v.Field(i))
			}
		}
		return members
	case reflect.Slice:
		items := make([]any, v.Len())
		for i := range items {
			items[i] = wireValue(v.Index(i))
		}
		return items
	case reflect.String:
		return v.String()
	case reflect.Bool:
		return v.Bool()
	case reflect.Int32, reflect.Int64:
		return v.Int()
	}
	panic(fmt.Sprintf("awstest: a record holds a %s", v.Type()))
}

// absent tells which members are left out: nil ones, and enumerations without a
// value. A plain bool is always there.
func absent(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer, reflect.Slice:
		return v.IsNil()
	case reflect.String:
		return v.Len() == 0
	}
	return false
}

// wireName undoes how the SDK makes an exported name of a member's.
func wireName(field string) string {
	first, size := utf8.DecodeRuneInString(field)
	return string(unicode.ToLower(first)) + field[size:]
}

// deepCopy copies a record, so that what a caller changes in it stays his.
func deepCopy[T any](v T) T {
	data, err := json.Marshal(v)
	if err == nil {
		var out T
		if err = json.Unmarshal(data, &out); err == nil {
			return out
		}
	}
	panic(fmt.Sprintf("awstest: %v", err))
}
