using System.Globalization;
using Fleet.Tests.Shared;

namespace Fleet.Linux.Tests;

/// <summary>Compiles a C program against the system's headers and returns what it prints: <c>name value</c> lines.</summary>
internal static class CProgram
{
    /// <param name="includes">Headers, such as <c>linux/kvm.h</c>.</param>
    /// <param name="expressions">C expressions whose values as unsigned 64-bit numbers are wanted; a name that the headers lack is left out of the answer.</param>
    public static async Task<IReadOnlyDictionary<string, ulong>> EvaluateAsync(IEnumerable<string> includes, IReadOnlyList<string> expressions)
    {
        var folder = Directory.CreateTempSubdirectory("fleet-c-");
        try
        {
            var source = "#define _GNU_SOURCE\n#include <stdio.h>\n#include <stddef.h>\n"
                + string.Concat(includes.Select(header => $"#include <{header}>\n"))
                + "int main(void) {\n"
                + string.Concat(expressions.Select(Print))
                + "return 0; }\n";
            var output = await CHelper.RunAsync(await CHelper.CompileAsync(source, folder));
            return output.Split('\n', StringSplitOptions.RemoveEmptyEntries)
                .Select(line => line.Split('\t'))
                .ToDictionary(parts => parts[0], parts => ulong.Parse(parts[1], CultureInfo.InvariantCulture));
        }
        finally
        {
            folder.Delete(recursive: true);
        }
    }

    // Only an upper-case name can be a macro that older headers lack.
    private static string Print(string expression)
    {
        var line = $"printf(\"%s\\t%llu\\n\", \"{expression}\", (unsigned long long)({expression}));\n";
        return expression.All(c => char.IsAsciiLetterUpper(c) || char.IsAsciiDigit(c) || c == '_') && !expression.StartsWith("SYS_", StringComparison.Ordinal)
            ? $"#ifdef {expression}\n{line}#endif\n"
            : line;
    }
}
