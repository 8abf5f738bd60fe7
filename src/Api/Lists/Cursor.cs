using System.Buffers.Text;
using System.Globalization;
using System.Text;
using Fleet.Api.Problems;

namespace Fleet.Api.Lists;

/// <summary>The opaque cursor of <c>?after=</c>: the key of the last item, in base64url.</summary>
public static class Cursor
{
    public static string Of(string key) => Base64Url.EncodeToString(Encoding.UTF8.GetBytes(key));

    public static string Of(long key) => Of(key.ToString(CultureInfo.InvariantCulture));

    public static string? ReadText(string? after, ValidationErrors errors)
    {
        if (after is null)
        {
            return null;
        }

        if (after.Length is > 0 and <= 200 && Base64Url.IsValid(after))
        {
            return Encoding.UTF8.GetString(Base64Url.DecodeFromChars(after));
        }

        errors.Add("after", "Not a cursor of this list.");
        return null;
    }

    public static long? ReadNumber(string? after, ValidationErrors errors)
    {
        var text = ReadText(after, errors);
        if (text is null)
        {
            return null;
        }

        if (long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var number))
        {
            return number;
        }

        errors.Add("after", "Not a cursor of this list.");
        return null;
    }
}
