using System.Text.Json;
using System.Text.Json.Serialization.Metadata;

namespace Fleet.TinyVmm.Wire;

/// <summary>One JSON value, one line.</summary>
public static class JsonLine
{
    public static byte[] Encode<T>(T value, JsonTypeInfo<T> type)
    {
        var json = JsonSerializer.SerializeToUtf8Bytes(value, type);
        return [.. json, (byte)'\n'];
    }
}
