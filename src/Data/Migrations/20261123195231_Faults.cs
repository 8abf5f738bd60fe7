using Microsoft.EntityFrameworkCore.Migrations;

#nullable disable

namespace Fleet.Data.Migrations
{
    /// <inheritdoc />
    public partial class Faults : Migration
    {
        /// <inheritdoc />
        protected override void Up(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.CreateTable(
                name: "dimms",
                columns: table => new
                {
                    Id = table.Column<long>(type: "INTEGER", nullable: false)
                        .Annotation("Sqlite:Autoincrement", true),
                    Host = table.Column<string>(type: "TEXT", maxLength: 64, nullable: false),
                    Label = table.Column<string>(type: "TEXT", maxLength: 128, nullable: false),
                    Locator = table.Column<string>(type: "TEXT", maxLength: 128, nullable: false),
                    Serial = table.Column<string>(type: "TEXT", maxLength: 128, nullable: false),
                    Manufacturer = table.Column<string>(type: "TEXT", maxLength: 128, nullable: false),
                    PartNumber = table.Column<string>(type: "TEXT", maxLength: 128, nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_dimms", x => x.Id);
                });

            migrationBuilder.CreateTable(
                name: "fault_hours",
                columns: table => new
                {
                    Id = table.Column<long>(type: "INTEGER", nullable: false)
                        .Annotation("Sqlite:Autoincrement", true),
                    Dimm = table.Column<long>(type: "INTEGER", nullable: false),
                    Kind = table.Column<string>(type: "TEXT", maxLength: 16, nullable: false),
                    Hour = table.Column<long>(type: "INTEGER", nullable: false),
                    Count = table.Column<long>(type: "INTEGER", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_fault_hours", x => x.Id);
                });

            migrationBuilder.CreateTable(
                name: "faults",
                columns: table => new
                {
                    Id = table.Column<long>(type: "INTEGER", nullable: false)
                        .Annotation("Sqlite:Autoincrement", true),
                    Dimm = table.Column<long>(type: "INTEGER", nullable: false),
                    PhysicalFrame = table.Column<long>(type: "INTEGER", nullable: false),
                    Kind = table.Column<string>(type: "TEXT", maxLength: 16, nullable: false),
                    Vm = table.Column<string>(type: "TEXT", maxLength: 64, nullable: true),
                    MemoryInstance = table.Column<long>(type: "INTEGER", nullable: true),
                    Frame = table.Column<long>(type: "INTEGER", nullable: true),
                    FirstAt = table.Column<long>(type: "INTEGER", nullable: false),
                    LastAt = table.Column<long>(type: "INTEGER", nullable: false),
                    Count = table.Column<long>(type: "INTEGER", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_faults", x => x.Id);
                });

            migrationBuilder.CreateIndex(
                name: "IX_dimms_Host_Label_Locator_Serial_Manufacturer_PartNumber",
                table: "dimms",
                columns: new[] { "Host", "Label", "Locator", "Serial", "Manufacturer", "PartNumber" },
                unique: true);

            migrationBuilder.CreateIndex(
                name: "IX_fault_hours_Dimm_Hour_Kind",
                table: "fault_hours",
                columns: new[] { "Dimm", "Hour", "Kind" },
                unique: true);

            migrationBuilder.CreateIndex(
                name: "IX_fault_hours_Hour",
                table: "fault_hours",
                column: "Hour");

            migrationBuilder.CreateIndex(
                name: "IX_faults_Dimm_PhysicalFrame_Kind",
                table: "faults",
                columns: new[] { "Dimm", "PhysicalFrame", "Kind" },
                unique: true);

            migrationBuilder.CreateIndex(
                name: "IX_faults_LastAt",
                table: "faults",
                column: "LastAt");
        }

        /// <inheritdoc />
        protected override void Down(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.DropTable(
                name: "dimms");

            migrationBuilder.DropTable(
                name: "fault_hours");

            migrationBuilder.DropTable(
                name: "faults");
        }
    }
}
